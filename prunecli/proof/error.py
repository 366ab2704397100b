"""How far a cut network may be from its reference, and how that is measured."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prunecli.errors import ProofError
from prunecli.graph.tracing.record import tensors_in

TOLERANCE = 1e-8
"""Largest allowed difference, relative to that between two inputs: correct cuts give 1e-13."""

TOLERANCES = {torch.float64: TOLERANCE, torch.float32: 1e-3}
"""By precision; float32, which only a cast in the forward calls for, gives up to 3e-4."""

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


def relative_error(found: Any, expected: Any) -> float:
    """Return the largest difference of two outputs, relative to how far they follow the input.

    The first two entries of the batch are different inputs; the largest difference between their
    outputs is the scale. What is the same for every input (a bias) would hide an error. Not finite
    counts as infinite. Raises `ProofError` (`EMPTY_PROOF`) where no output follows the input.
    """
    differences, scales = [], []
    outputs = [_signed(tensor) for tensor in tensors_in(found)]
    others = tensors_in(expected)
    if len(outputs) != len(others):
        return float("inf")
    for first, other in zip(outputs, others, strict=True):
        second = _signed(other)
        if first.shape != second.shape:
            return float("inf")
        if not first.numel():
            continue
        batch = first if first.dim() and first.shape[0] > 1 else torch.stack([first * 0, first])
        scales.append(float((batch[0] - batch[1]).abs().max()))
        differences.append(float((first - second).abs().max()))
        if not math.isfinite(scales[-1] + differences[-1]):
            return float("inf")
    sizes = [float(tensor.abs().max()) for tensor in outputs if tensor.numel()]
    if max(scales, default=0.0) <= TOLERANCE * max(sizes, default=0.0):
        raise ProofError(
            "the model's output does not depend on its input, so no proof means anything",
            code="EMPTY_PROOF",
            hint="nothing was written; the weights are dead or were never loaded",
        )
    floor = TOLERANCE * max(scales)
    return max(
        difference / max(scale, ROUNDING * size, floor)
        for difference, scale, size in zip(differences, scales, sizes, strict=True)
    )


def _signed(value: Tensor) -> Tensor:
    return value if value.is_floating_point() or value.is_complex() else value.double()
