"""How far a cut network may be from its reference, and how that is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunecli.errors import ProofError
from prunecli.graph.tracing.record import tensors_in

TOLERANCE = 1e-8
"""Largest allowed difference, relative to that between two inputs: correct cuts give 1e-13."""

TOLERANCES = {
    torch.float64: TOLERANCE,
    torch.float32: 1e-3,
    torch.float16: 5e-2,
    torch.bfloat16: 2e-1,
}
"""By precision; float32, which only a cast in the forward calls for, gives up to 3e-4.

Half precisions are the last resort, for networks that hold their inputs to them.
"""

ROUNDING = 1e-4
"""The least scale of an error, relative to the size of the output.

In deep networks rounding reaches 1e-13 of the output, whatever little of it follows the input. A
wrong cut in an output that follows by 1e-8 of its size still stands out by a factor of 10.
"""

AMPLIFIED = 1e-5
"""Largest error that is ever put down to rounding.

A deep network with random weights can blow a rounding error up; then the same network differs as
much on inputs that differ in their last bits, and its cut may. Wrong cuts give 1e-3 and more.
"""


@dataclass(frozen=True)
class Errors:
    """How far two networks differ: in every output channel, and at most in a whole output.

    A channel (dimension 1) is judged by its own scale, how far it differs between the entries of
    the batch; an output by that of its largest channel.
    """

    channels: tuple[float, ...]
    """By output: the largest error of a channel of it."""
    outputs: float
    """The largest error of an output as a whole."""

    @property
    def largest(self) -> float:
        """The largest error of a channel."""
        return max(self.channels)


def relative_error(found: Any, expected: Any) -> float:
    """Return the largest error of a channel of two outputs (`relative_errors`)."""
    return relative_errors(found, expected).largest


def relative_errors(found: Any, expected: Any) -> Errors:
    """Return the differences of two outputs, relative to how far these follow the input.

    What is the same for every input (a bias) would hide an error, and so would a channel that is
    much larger. Not finite in one alone counts as infinite. Raises `ProofError` (`EMPTY_PROOF`)
    where no output follows the input.
    """
    outputs, others = tensors_in(found), tensors_in(expected)
    pairs = [_finite(one, other) for one, other in zip(outputs, others, strict=False)]
    if len(outputs) != len(others) or any(pair is None for pair in pairs):
        return Errors((float("inf"),), float("inf"))
    channels = [_channels(*pair) for pair in pairs if pair is not None and pair[0].numel()]
    most = max((float(one.scales.max()) for one in channels), default=0.0)
    size = max((float(one.sizes.max()) for one in channels), default=0.0)
    if most <= TOLERANCE * size:
        raise ProofError(
            "the model's output does not depend on its input, so no proof means anything",
            code="EMPTY_PROOF",
            hint="nothing was written; the weights are dead or were never loaded",
        )
    floor = TOLERANCE * most
    return Errors(
        tuple(float(one.errors(floor).max()) for one in channels),
        max(one.error(floor) for one in channels),
    )


@dataclass(frozen=True)
class _Channels:
    """Of every channel of an output: how far two networks differ, its scale and its size."""

    differences: Tensor
    scales: Tensor
    sizes: Tensor

    def errors(self, floor: float) -> Tensor:
        """Return the error of every channel, none relative to less than `floor`."""
        return self.differences / self._least().clamp(min=floor)

    def error(self, floor: float) -> float:
        """Return the error of the output as a whole."""
        return float(self.differences.max() / self._least().max().clamp(min=floor))

    def _least(self) -> Tensor:
        return torch.maximum(self.scales, ROUNDING * self.sizes)


def _channels(found: Tensor, expected: Tensor) -> _Channels:
    batch = found if found.dim() and found.shape[0] > 1 else torch.stack([found * 0, found])
    return _Channels(
        differences=_largest((found - expected).abs()),
        scales=_largest((batch.amax(0) - batch.amin(0))[None]),
        sizes=_largest(found.abs()),
    )


def _largest(value: Tensor) -> Tensor:
    """Return the largest entry of every channel of values with a batch dimension."""
    if value.dim() > 2:
        return value.flatten(2).amax((0, 2))
    return value.reshape(value.shape[0] if value.dim() else 1, -1).amax(0)


def _finite(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return two outputs in double precision with 0 for what is not finite in both.

    None where they differ in shape, or in what is not finite.
    """
    if found.shape != expected.shape:
        return None
    first, second = _signed(found), _signed(expected)
    wrong = ~first.isfinite()
    if not bool(wrong.any()):
        return (first, second) if bool(second.isfinite().all()) else None
    same = torch.equal(first.nan_to_num(nan=0.5)[wrong], second.nan_to_num(nan=0.5)[wrong])
    if not same or bool((~second.isfinite() & ~wrong).any()):
        return None
    return first.masked_fill(wrong, 0), second.masked_fill(wrong, 0)


def _signed(value: Tensor) -> Tensor:
    if value.is_complex():
        return torch.view_as_real(value.resolve_conj()).double()
    return value.double()
