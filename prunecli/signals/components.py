"""The four parts of a signal, as tables: what is read, what is computed, reduced and scaled.

The taxonomy is that of Persand, Anderson and Gregg (arXiv 1906.04675): the signal of channel `c` is
`mean_n R(f(x)) / K` over samples `n`, with `x` the scalars of the base input that belong to `c`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.errors import InputError
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

TAXONOMY = "Persand, Anderson, Gregg 2019, arXiv 1906.04675"


@dataclass(frozen=True)
class Signal:
    """A point of the taxonomy: `base_input/pointwise_metric/reduction/scaling`."""

    base_input: str
    pointwise_metric: str
    reduction: str
    scaling: str

    def __str__(self) -> str:
        parts = (self.base_input, self.pointwise_metric, self.reduction, self.scaling)
        return "/".join(parts)

    @property
    def needs_data(self) -> bool:
        """Whether images are needed to compute it."""
        return self.base_input == "activation" or METRICS.get(self.pointwise_metric).needs_gradient


@dataclass(frozen=True)
class PointwiseMetric:
    """`f(x, g)` for each scalar, with `g` the gradient of the sample's own loss."""

    function: Callable[[Tensor, Tensor], Tensor]
    needs_gradient: bool


@dataclass(frozen=True)
class Reduction:
    """Summed over a channel's scalars is `inside(f)`; `outside` is then applied once a sample."""

    inside: Callable[[Tensor], Tensor]
    outside: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ScalingFacts:
    """What a scaling may divide by, per atom of one site: elements reduced, weights removed."""

    elements: Tensor
    weights_removed: Tensor


METRICS: Registry[PointwiseMetric] = Registry("pointwise metric")
REDUCTIONS: Registry[Reduction] = Registry("reduction")
SCALINGS: Registry[Callable[[Tensor, ScalingFacts], Tensor]] = Registry("scaling")
BASE_INPUTS: Registry[str] = Registry("base input")

BASE_INPUTS.add(
    "weight", "weight", summary="The weights (and bias) that make a channel.", source=TAXONOMY
)
BASE_INPUTS.add(
    "activation",
    "activation",
    summary="A channel's feature map where the next layer reads it (after the activation).",
    source=TAXONOMY,
)


def _metric(
    name: str, function: Callable[[Tensor, Tensor], Tensor], *, gradient: bool, summary: str
) -> None:
    METRICS.add(name, PointwiseMetric(function, gradient), summary=summary, source=TAXONOMY)


_metric("value", lambda x, _: x, gradient=False, summary="x")
_metric("gradient", lambda _, g: g, gradient=True, summary="g, the gradient of the sample's loss")
_metric("taylor", lambda x, g: -x * g, gradient=True, summary="-x g")
_metric(
    "hessian-approx2",
    lambda x, g: 0.5 * (x * g).square(),
    gradient=True,
    summary="x^2 g^2 / 2: the Hessian's diagonal by squared gradients",
)
_metric(
    "taylor2-approx2",
    lambda x, g: -x * g + 0.5 * (x * g).square(),
    gradient=True,
    summary="-x g + x^2 g^2 / 2",
)


def _identity(value: Tensor) -> Tensor:
    return value


for _name, _inside, _outside, _summary in (
    ("none", _identity, _identity, "The sum."),
    ("l1", torch.abs, _identity, "The sum of absolute values."),
    ("l2", torch.square, _identity, "The sum of squares (no root)."),
    ("abs-sum", _identity, torch.abs, "The absolute value of the sum."),
    ("sqr-sum", _identity, torch.square, "The square of the sum."),
):
    REDUCTIONS.add(_name, Reduction(_inside, _outside), summary=_summary, source=TAXONOMY)


def _nonzero(value: Tensor) -> Tensor:
    return torch.where(value == 0, torch.ones_like(value), value)


SCALINGS.add("none", lambda s, _: s, summary="As it is.", source=TAXONOMY)
SCALINGS.add(
    "l0", lambda s, f: s / _nonzero(f.elements), summary="By elements reduced.", source=TAXONOMY
)
SCALINGS.add(
    "l1", lambda s, _: s / _nonzero(s.abs().sum()), summary="By the layer's L1.", source=TAXONOMY
)
SCALINGS.add(
    "l2",
    lambda s, _: s / _nonzero(s.square().sum().sqrt()),
    summary="By the layer's L2 norm.",
    source=TAXONOMY,
)
SCALINGS.add(
    "weights-removed",
    lambda s, f: s / _nonzero(f.weights_removed),
    summary="By all weights that go with the channel, its consumers' included.",
    source=TAXONOMY,
)

AGGREGATES: Registry[Callable[[Tensor], Tensor]] = Registry("aggregate")
AGGREGATES.add("sum", lambda s: s.nansum(0), summary="Sum over the sites of a group.")
AGGREGATES.add("mean", lambda s: s.nanmean(0), summary="Mean over the sites of a group.")
AGGREGATES.add("max", lambda s: s.nan_to_num(-torch.inf).amax(0), summary="Largest over the sites.")
AGGREGATES.add("first", lambda s: s[0], summary="Only the first site that has the channel.")


def parse_signal(text: str) -> Signal:
    """Read `base_input/pointwise_metric/reduction/scaling`; raise `InputError` if it is not one.

    >>> parse_signal("activation/taylor/abs-sum/l2").needs_data
    True
    """
    parts = text.split("/")
    if len(parts) != 4:
        raise InputError(
            f"{text!r} is not a signal",
            code="BAD_SIGNAL",
            hint="use a preset (prunecli methods) or base_input/pointwise_metric/reduction/scaling",
        )
    signal = Signal(*parts)
    BASE_INPUTS.get(signal.base_input)
    metric = METRICS.get(signal.pointwise_metric)
    REDUCTIONS.get(signal.reduction)
    SCALINGS.get(signal.scaling)
    if signal.base_input == "weight" and metric.needs_gradient:
        raise InputError(
            f"{text}: gradients of single images with respect to weights are not supported yet",
            code="BAD_SIGNAL",
            hint=f"use activation/{signal.pointwise_metric}/{signal.reduction}/{signal.scaling}",
        )
    return signal
