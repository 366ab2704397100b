"""One saliency per weight, by the parts of the taxonomy that signals of channels have.

A weight is a channel of one scalar: `mean_n R(f(w)) / K` with `R` over that scalar alone. So
`weight/value/l1/none` is |w|, `weight/taylor/abs-sum/none` the mean of |w g| over images, and
`weight-batch/taylor/l1/none` that of |w g| with batch gradients (SNIP up to its scaling).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunecli.errors import InputError
from prunecli.preflight.pruning import LATENCY_REMOVED, no_images
from prunecli.progress import Progress, Step, silent
from prunecli.signals import PRESETS, Signal, parse_signal
from prunecli.signals.components import (
    BASE_INPUTS,
    METRICS,
    REDUCTIONS,
    SCALINGS,
    Scalars,
    ScalingFacts,
)
from prunecli.signals.derive import derived, needs_of_tensors
from prunecli.signals.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from prunecli.evaluation.batches import BatchSource
    from prunecli.network.traced import Network
    from prunecli.signals.derive import Batch
    from prunecli.sparse.layers import WeightLayer

RANDOM = "random"
BASES = ("weight", "weight-batch")
"""The base inputs that single weights have."""

EMPTY_METRICS = {
    "mean-replacement": "a single weight is its own mean",
    "positive": "the sign of a weight says nothing of its worth",
}
HELD = 1 << 22
"""Scalars of single images that are worked on at a time."""


def weight_signal(name: str) -> Signal | None:
    """Return the point of the taxonomy that a name stands for on single weights; None: random.

    A preset that looks at gradients of activations (`taylor`, `fisher`) is taken on weights
    instead. Raises `InputError` (`SIGNAL_NOT_OF_WEIGHTS`) for what single weights do not have.
    """
    if name == RANDOM:
        return None
    signal = _on_weights(parse_signal(name) if "/" in name else PRESETS.get(name))
    reason = _why_not(signal)
    if reason:
        hint = "--allocation lamp" if name == "lamp" else ", ".join(weight_signal_names())
        raise InputError(
            f"the signal {name} does not rank single weights: {reason}",
            code="SIGNAL_NOT_OF_WEIGHTS",
            hint=f"use {hint}, or weight/METRIC/REDUCTION/SCALING (see prunecli methods)",
        )
    return signal


def weight_signal_names() -> tuple[str, ...]:
    """Return the presets that single weights have."""
    return tuple(
        entry.name
        for entry in PRESETS
        if entry.name == RANDOM or not _why_not(_on_weights(entry.value))
    )


def _on_weights(preset: object) -> Signal | None:
    """Return a preset's point of the taxonomy on weights; None for one that is no such point."""
    if isinstance(preset, Signal):
        return preset
    if not isinstance(preset, str):
        return None
    signal = parse_signal(preset)
    if METRICS.get(signal.pointwise_metric).needs_gradient and signal.base_input not in BASES:
        return dataclasses.replace(signal, base_input="weight")
    return signal


def _why_not(signal: Signal | None) -> str:
    if signal is None:
        return "it is one of whole channels"
    if signal.base_input not in BASES:
        return f"{signal.base_input} has no value for a single weight"
    if signal.scaling == LATENCY_REMOVED:
        return "no time goes with a single weight"
    return EMPTY_METRICS.get(signal.pointwise_metric, "")


def weight_saliencies(
    network: Network,
    layers: Sequence[WeightLayer],
    name: str,
    *,
    batches: BatchSource | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[NDArray[np.float64]]:
    """Return flat saliencies of every layer's weights, larger is more important.

    Raises `InputError` for a signal that needs images and has none (`SIGNAL_NEEDS_DATA`), or whose
    values are not finite (`BAD_SALIENCY`).
    """
    signal = weight_signal(name)
    if signal is None:
        generator = np.random.default_rng(seed)
        return [generator.random(layer.size) for layer in layers]
    if signal.needs_data and batches is None:
        raise no_images(name)
    with torch.no_grad():
        sums = _sums(network, layers, signal, batches, progress=progress)
        scale = SCALINGS.get(signal.scaling)
        flops = _flops_of_weights(network, layers)
        found = []
        for layer, total in zip(layers, sums, strict=True):
            one = torch.ones(())
            per_weight = torch.tensor(flops[layer.name], dtype=torch.float64)
            values = scale(total, ScalingFacts(one, one, one, one, per_weight, one)).numpy()
            bad = int((~np.isfinite(values)).sum())
            if bad:
                raise InputError(
                    f"the signal {name} is not finite for {bad} weights",
                    code="BAD_SALIENCY",
                    where=layer.name,
                    hint="the weights or activations overflow; try another signal",
                )
            found.append(values)
    return found


def _sums(
    network: Network,
    layers: Sequence[WeightLayer],
    signal: Signal,
    batches: BatchSource | None,
    *,
    progress: Progress,
) -> list[Tensor]:
    """Return the mean over images of the reduced metric of every weight."""
    weights = [network.tensors[layer.name].detach() for layer in layers]
    values = [weight.float() if weight.element_size() < 4 else weight for weight in weights]
    values = [value.reshape(1, -1, 1) for value in values]
    zero = torch.zeros(())
    if not signal.needs_data:
        return [_reduced(signal, Scalars(value, zero, zero))[0].cpu() for value in values]
    count = network.coupling.atom_count
    ones = np.ones(count)
    subject = Subject(
        str(signal), network.trace, network.coupling, network.tensors, ones, ones, ones, {},
        batches, "sum", 0, progress,
    )  # fmt: skip
    names = [layer.name for layer in layers]
    single = BASE_INPUTS.get(signal.base_input).per_image
    needs = needs_of_tensors(
        [signal], subject, single=names if single else (), mean=() if single else names
    )
    sums = [torch.zeros(layer.size, dtype=torch.float64) for layer in layers]
    images = 0
    for batch in derived(needs, subject):
        for total, value, own in zip(sums, values, names, strict=True):
            for gradient, curvature, several in _derivatives(batch, own, mean=not single):
                each = several / max(len(gradient), len(curvature))
                for few in Scalars(value, gradient, curvature).split(HELD):
                    total.add_(_reduced(signal, few).sum(0).cpu(), alpha=each)
        images += batch.images
        progress(Step("scoring", images))
    if not images:
        raise no_images(str(signal))
    return [total / images for total in sums]


def _derivatives(batch: Batch, name: str, *, mean: bool) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield first and second derivatives `[images, weights, 1]`, and how many images they are of.

    Those that nothing needs are one zero.
    """
    wanted = (batch.needs.gradient, batch.needs.curvature)
    for few in [slice(0, batch.images)] if mean else batch.pieces(name):
        found = []
        for curved, needed in enumerate(wanted):
            if not needed:
                found.append(torch.zeros(1, 1, 1))
                continue
            value = (
                batch.of_mean(name, curved=bool(curved))
                if mean
                else batch.derivative(name, few, curved=bool(curved))
            )
            value = value.reshape(len(value), -1, 1)
            found.append(value.float() if value.element_size() < 4 else value)
        yield found[0], found[1], few.stop - few.start


def _reduced(signal: Signal, scalars: Scalars) -> Tensor:
    """Return `R(f(x))` as `[samples, weights]`."""
    rule = REDUCTIONS.get(signal.reduction)
    values = METRICS.get(signal.pointwise_metric).function(scalars)
    return rule.outside(rule.inside(values).double())


def _flops_of_weights(network: Network, layers: Sequence[WeightLayer]) -> dict[str, float]:
    """Return the multiply-adds that one weight of each layer takes part in."""
    cost = network.cost
    total = cost.dense["flops"]
    return {
        layer.name: cost.share_of_tensors({layer.name}) * total / max(layer.size, 1)
        for layer in layers
    }
