"""The four parts of a signal, as tables: what is read, what is computed, reduced and scaled.

The taxonomy is that of Persand, Anderson and Gregg (arXiv 1906.04675): the signal of channel `c` is
`mean_n R(f(x)) / K` over samples `n`, with `x` the scalars of the base input that belong to `c`.
Entries with that source make up the published grid; those with another one extend it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from prunecli.options.names import signal_parts
from prunecli.preflight.pruning import LATENCY_REMOVED
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TAXONOMY = "Persand, Anderson, Gregg 2019, arXiv 1906.04675"
VARIANT = "Persand et al., another reading"
EXTENSION = "prunecli, an extension"


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
        metric = METRICS.get(self.pointwise_metric)
        derived = metric.needs_gradient or metric.needs_curvature
        return BASE_INPUTS.get(self.base_input).activation or derived


@dataclass(frozen=True)
class BaseInput:
    """What is read: activations or weights, where, and whose gradients.

    `made` stands for where channels are made (the output of a layer, its rows of weights), else
    where they are read; `per_image` for gradients of the loss of single images, else of the mean
    loss of a batch.
    """

    activation: bool
    made: bool
    per_image: bool = True


@dataclass(frozen=True)
class Scalars:
    """The scalars of a base input as `[samples, channels, positions]`.

    `gradient` and `curvature` are the first and the second derivatives of the sample's own loss;
    weights have one sample of values that meets many of derivatives. Derivatives that no metric at
    hand needs are zeros. `batch` holds all samples where these are a few of them. `kernel` is how
    many positions in a row belong to one input of a weight (a bias behind them is an input of its
    own); 0 where all do, as in a feature map.
    """

    value: Tensor
    gradient: Tensor
    curvature: Tensor
    batch: Scalars | None = None
    kernel: int = 0

    @cached_property
    def product(self) -> Tensor:
        """The value times its gradient, computed once for all metrics that are made of it."""
        return self.value * self.gradient

    @cached_property
    def bend(self) -> Tensor:
        """Half the squared value times its curvature."""
        return self.value.square().mul_(0.5).mul(self.curvature)

    @cached_property
    def mean(self) -> Tensor:
        """The mean of every channel over the samples and positions of its batch."""
        if self.batch is not None:
            return self.batch.mean
        return self.value.mean((0, 2), keepdim=True)

    def split(self, size: int) -> Iterator[Scalars]:
        """Yield the samples a few at a time, about `size` scalars, for a processor's cache."""
        parts = (self.value, self.gradient, self.curvature)
        samples = max(len(part) if part.dim() else 1 for part in parts)
        step = max(1, size // max(self.value[0].numel(), 1))
        for start in range(0, samples, step):
            several = slice(start, start + step)
            value, gradient, curvature = (
                part if not part.dim() or len(part) < samples else part[several] for part in parts
            )
            yield Scalars(value, gradient, curvature, batch=self, kernel=self.kernel)


@dataclass(frozen=True)
class PointwiseMetric:
    """`f(x, g, h)` for each scalar, with `g` and `h` of the sample's own loss."""

    function: Callable[[Scalars], Tensor]
    needs_gradient: bool
    needs_curvature: bool = False


@dataclass(frozen=True)
class Reduction:
    """`inside` sums over a channel's positions; `outside` is then applied once a sample.

    With `by_kernel`, `outside` is applied to the sum of each kernel of a weight, and `inside` adds
    up what that gives.
    """

    inside: Callable[[Tensor], Tensor]
    outside: Callable[[Tensor], Tensor]
    by_kernel: bool = False


@dataclass(frozen=True)
class ScalingFacts:
    """What a scaling may divide by, per atom of one site.

    `elements` counts the scalars reduced, those of earlier cuts included, `active` those that are
    still there; `inputs` is, for activations, how many channels the layer behind them reads (1 for
    weights). `weights_removed`, `flops_removed` and `latency_removed` (milliseconds) are what goes
    with the atom, that of its consumers too.
    """

    elements: Tensor
    active: Tensor
    inputs: Tensor
    weights_removed: Tensor
    flops_removed: Tensor
    latency_removed: Tensor


METRICS: Registry[PointwiseMetric] = Registry("pointwise metric")
REDUCTIONS: Registry[Reduction] = Registry("reduction")
SCALINGS: Registry[Callable[[Tensor, ScalingFacts], Tensor]] = Registry("scaling")
BASE_INPUTS: Registry[BaseInput] = Registry("base input")

BASE_INPUTS.add(
    "weight",
    BaseInput(activation=False, made=True),
    summary="The weights (and bias) that make a channel; gradients of single images.",
    source=TAXONOMY,
)
BASE_INPUTS.add(
    "activation",
    BaseInput(activation=True, made=False),
    summary="A channel's feature map where the next layer reads it (after the activation).",
    source=TAXONOMY,
)
BASE_INPUTS.add(
    "activation-before",
    BaseInput(activation=True, made=True),
    summary="A channel's feature map where its layer makes it (before norm and activation).",
    source="Evci 2018, arXiv 1806.06068",
)
BASE_INPUTS.add(
    "weight-batch",
    BaseInput(activation=False, made=True, per_image=False),
    summary="As `weight`, with the gradient of a batch's mean loss: cheap, not the same.",
    source="Persand et al., the cheap variant of their helper",
)
BASE_INPUTS.add(
    "weight-input",
    BaseInput(activation=False, made=False),
    summary="The weights that read a channel: the input-channel variant of `weight`.",
    source=EXTENSION,
)
BASE_INPUTS.add(
    "weight-input-batch",
    BaseInput(activation=False, made=False, per_image=False),
    summary="As `weight-input`, with the gradient of a batch's mean loss.",
    source=EXTENSION,
)


def _metric(
    name: str,
    function: Callable[[Scalars], Tensor],
    summary: str,
    *,
    gradient: bool = False,
    curvature: bool = False,
    source: str = TAXONOMY,
) -> None:
    METRICS.add(
        name, PointwiseMetric(function, gradient, curvature), summary=summary, source=source
    )


_metric("value", lambda s: s.value, "x")
_metric("gradient", lambda s: s.gradient, "g, the gradient of the sample's loss", gradient=True)
_metric("taylor", lambda s: -s.product, "-x g", gradient=True)
_metric(
    "hessian-approx1",
    lambda s: s.bend,
    "x^2 h / 2, h the Hessian's diagonal by curvature propagation (LeCun et al. 1990)",
    curvature=True,
)
_metric(
    "hessian-approx2",
    lambda s: s.product.square().mul_(0.5),
    "x^2 g^2 / 2: the Hessian's diagonal by squared gradients",
    gradient=True,
)
_metric(
    "taylor2-approx1",
    lambda s: s.bend - s.product,
    "-x g + x^2 h / 2, h by curvature propagation",
    gradient=True,
    curvature=True,
)
_metric(
    "taylor2-approx2",
    lambda s: (s.product * 0.5).sub_(1).mul_(s.product),
    "-x g + x^2 g^2 / 2",
    gradient=True,
)
_metric(
    "positive",
    lambda s: (s.value > 0).to(s.value.dtype),
    "1 where x > 0: the fraction of positives under `none` and `l0` (1 - APoZ)",
    source="Hu et al. 2016, arXiv 1607.03250",
)
_metric(
    "mean-replacement",
    lambda s: (s.mean - s.value) * s.gradient,
    "(m - x) g, m the channel's mean over the batch at hand",
    gradient=True,
    source="Evci 2018, arXiv 1806.06068",
)


def _sum(value: Tensor) -> Tensor:
    return value.sum(-1)


def _absolute_sum(value: Tensor) -> Tensor:
    return value.abs().sum(-1)


def _square_sum(value: Tensor) -> Tensor:
    return value.square().sum(-1)


def _identity(value: Tensor) -> Tensor:
    return value


for _name, _inside, _outside, _summary in (
    ("none", _sum, _identity, "The sum."),
    ("l1", _absolute_sum, _identity, "The sum of absolute values."),
    ("l2", _square_sum, _identity, "The sum of squares (no root)."),
    ("abs-sum", _sum, torch.abs, "The absolute value of the sum."),
    ("sqr-sum", _sum, torch.square, "The square of the sum."),
):
    REDUCTIONS.add(_name, Reduction(_inside, _outside), summary=_summary, source=TAXONOMY)

for _name, _outside, _summary in (
    ("abs-sum-kernels", torch.abs, "Weights: absolute sums over each kernel, then their sum."),
    ("sqr-sum-kernels", torch.square, "Weights: squared sums over each kernel, then their sum."),
):
    # What the Python helper of the same authors computes, in place of one sum over all kernels.
    REDUCTIONS.add(
        _name, Reduction(_sum, _outside, by_kernel=True), summary=_summary, source=VARIANT
    )


def kernel_sums(value: Tensor, kernel: int) -> Tensor:
    """Return the sums of `[samples, channels, positions]` over each kernel, one per input.

    >>> kernel_sums(torch.tensor([[[1.0, -2.0, 3.0, 4.0, 9.0]]]), 2).tolist()
    [[[-1.0, 7.0, 9.0]]]
    """
    whole = functional.pad(value, (0, -value.shape[-1] % kernel))
    return whole.reshape(*value.shape[:-1], -1, kernel).sum(-1)


def _nonzero(value: Tensor) -> Tensor:
    return torch.where(value == 0, torch.ones_like(value), value)


for _name, _scale, _summary, _source in (
    ("none", lambda s, _: s, "As it is.", TAXONOMY),
    ("l0", lambda s, f: s / _nonzero(f.elements), "By elements reduced.", TAXONOMY),
    (
        "l0-adjusted",
        lambda s, f: s / _nonzero(f.active),
        "By elements reduced whose input channel has not been removed before.",
        TAXONOMY,
    ),
    (
        "l0-2019",
        lambda s, f: s / _nonzero(f.elements * f.inputs),
        "As `l0`; for activations also by the inputs of the first layer that makes the channel.",
        VARIANT,
    ),
    ("l1", lambda s, _: s / _nonzero(s.abs().sum()), "By the layer's L1.", TAXONOMY),
    (
        "l2",
        lambda s, _: s / _nonzero(s.square().sum().sqrt()),
        "By the layer's L2 norm.",
        TAXONOMY,
    ),
    (
        "weights-removed",
        lambda s, f: s / _nonzero(f.weights_removed),
        "By all weights that go with the channel, its consumers' included.",
        TAXONOMY,
    ),
    (
        "flops-removed",
        lambda s, f: s / _nonzero(f.flops_removed),
        "By all FLOPs that go with the channel, its consumers' included.",
        EXTENSION,
    ),
    (
        LATENCY_REMOVED,
        lambda s, f: s / _nonzero(f.latency_removed),
        "By its share of the milliseconds of a block of channels; needs a latency table.",
        EXTENSION,
    ),
):
    SCALINGS.add(_name, _scale, summary=_summary, source=_source)

AGGREGATES: Registry[Callable[[Tensor], Tensor]] = Registry("aggregate")
AGGREGATES.add("sum", lambda s: s.nansum(0), summary="Sum over the sites of a group.")
AGGREGATES.add("mean", lambda s: s.nanmean(0), summary="Mean over the sites of a group.")
AGGREGATES.add("max", lambda s: s.nan_to_num(-torch.inf).amax(0), summary="Largest over the sites.")
AGGREGATES.add("first", lambda s: s[0], summary="Only the first site that has the channel.")


def grid() -> tuple[Signal, ...]:
    """Return the 420 combinations of the published grid, without extensions."""
    tables = (BASE_INPUTS, METRICS, REDUCTIONS, SCALINGS)
    names = ([entry.name for entry in table if entry.source == TAXONOMY] for table in tables)
    return tuple(Signal(*parts) for parts in itertools.product(*names))


def distinct_grid() -> tuple[Signal, ...]:
    """Return the 396 that differ: x^2 g^2 / 2 is never negative, so three reductions are one."""
    same = {"l1", "abs-sum"}
    return tuple(
        signal
        for signal in grid()
        if signal.pointwise_metric != "hessian-approx2" or signal.reduction not in same
    )


def parse_signal(text: str) -> Signal:
    """Read `base_input/pointwise_metric/reduction/scaling`; raise `InputError` if it is not one.

    >>> parse_signal("activation/taylor/abs-sum/l2").needs_data
    True
    """
    signal = Signal(*signal_parts(text))
    BASE_INPUTS.get(signal.base_input)
    METRICS.get(signal.pointwise_metric)
    REDUCTIONS.get(signal.reduction)
    SCALINGS.get(signal.scaling)
    return signal
