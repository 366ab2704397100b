"""Compute the saliency of every atom of a coupled network under one signal, or under many."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from prunecli.evaluation.batches import count_images
from prunecli.options import PruneOptions
from prunecli.preflight.pruning import LATENCY_REMOVED, no_images
from prunecli.progress import Progress, silent
from prunecli.registry import Registry
from prunecli.signals.components import Signal, parse_signal
from prunecli.signals.measure import measure
from prunecli.signals.subject import (
    SiteScore,
    Subject,
    check_finite,
    combine,
    no_latencies,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.evaluation.batches import BatchSource
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

__all__ = ["PRESETS", "Adjusted", "Scorer", "SiteScore", "Subject", "needs_data", "score"]

Scorer = Callable[[Subject], Tensor]


class Traced(Protocol):
    """A traced network: its graph, its channel groups and its tensors."""

    @property
    def trace(self) -> Trace:
        """The graph."""

    @property
    def coupling(self) -> CouplingGraph:
        """Its channel groups."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Its tensors by name."""


def _nothing_said(_: Traced, images: int) -> list[str]:
    del images
    return []


@dataclass(frozen=True)
class Adjusted:
    """A point of the taxonomy, and what is done to its saliencies (one per atom) afterwards."""

    signal: str
    adjust: Callable[[Tensor, Subject], Tensor]


@dataclass(frozen=True)
class OnImages:
    """A signal of its own that looks at the subject's images.

    `fallbacks` says what it leaves out of a network that is too large, for a number of images.
    """

    score: Scorer
    fallbacks: Callable[[Traced, int], list[str]] = _nothing_said


PRESETS: Registry[str | Adjusted | Scorer | OnImages] = Registry("signal")


def needs_data(signal: str) -> bool:
    """Tell whether a signal looks at images."""
    if "/" not in signal and isinstance(PRESETS.get(signal), OnImages):
        return True
    point = point_of(signal)
    return point is not None and point.needs_data


def fallbacks_of(signal: str, network: Traced, batches: BatchSource | None) -> list[str]:
    """Say what a signal leaves out of a network that is too large, and what it does instead."""
    preset = None if "/" in signal else PRESETS.get(signal)
    if batches is None or not isinstance(preset, OnImages):
        return []
    return preset.fallbacks(network, count_images(batches))


def point_of(signal: str) -> Signal | None:
    """Return the point of the taxonomy that a name stands for, if any."""
    preset = PRESETS.get(signal) if "/" not in signal else signal
    preset = preset.signal if isinstance(preset, Adjusted) else preset
    return parse_signal(preset) if isinstance(preset, str) else None


def score(
    signal: str,
    trace: Trace,
    coupling: CouplingGraph,
    tensors: Mapping[str, Tensor],
    *,
    weights_removed: NDArray[np.float64],
    flops_removed: NDArray[np.float64] | None = None,
    latency_removed: NDArray[np.float64] | None = None,
    batches: BatchSource | None = None,
    aggregate: str = PruneOptions.aggregate,
    seed: int = 0,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return one saliency per atom, NaN where the signal cannot see an atom.

    See `score_many`.
    """
    found = score_many(
        [signal],
        trace,
        coupling,
        tensors,
        weights_removed=weights_removed,
        flops_removed=flops_removed,
        latency_removed=latency_removed,
        batches=batches,
        aggregate=aggregate,
        seed=seed,
        progress=progress,
    )
    return found[signal]


def score_many(
    signals: Sequence[str],
    trace: Trace,
    coupling: CouplingGraph,
    tensors: Mapping[str, Tensor],
    *,
    weights_removed: NDArray[np.float64],
    flops_removed: NDArray[np.float64] | None = None,
    latency_removed: NDArray[np.float64] | None = None,
    dense_shapes: Mapping[str, tuple[int, ...]] | None = None,
    batches: BatchSource | None = None,
    aggregate: str = PruneOptions.aggregate,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, NDArray[np.float64]]:
    """Return one saliency per atom under every signal; the images are looked at once.

    A signal is a preset or `base_input/pointwise_metric/reduction/scaling`; `weights_removed`,
    `flops_removed` and `latency_removed` (what goes with an atom) have one entry per atom;
    `dense_shapes` are those that the tensors of a network that was cut before had then. Raises
    `InputError` when a signal needs images or milliseconds and there are none, or when a saliency
    is not finite.
    """
    count = coupling.atom_count
    subject = Subject(
        signals[0] if signals else "",
        trace,
        coupling,
        tensors,
        weights_removed,
        np.ones(count) if flops_removed is None else flops_removed,
        np.ones(count) if latency_removed is None else latency_removed,
        dense_shapes or {},
        batches,
        aggregate,
        seed,
        progress,
    )
    points = {name: point_of(name) for name in signals}
    for name, point in points.items():
        if batches is None and needs_data(name):
            raise no_images(name)
        if point is not None and point.scaling == LATENCY_REMOVED and latency_removed is None:
            raise no_latencies(name)
    with torch.no_grad():
        sites = measure([point for point in points.values() if point is not None], subject)
        return {
            name: finished(
                name, dataclasses.replace(subject, signal=name), sites[point] if point else None
            )
            for name, point in points.items()
        }


def finished(name: str, subject: Subject, sites: list[SiteScore] | None) -> NDArray[np.float64]:
    """Return one saliency per atom from the sites of a signal of the taxonomy, or from a scorer."""
    preset = PRESETS.get(name) if "/" not in name else name
    if sites is None:
        scorer = preset.score if isinstance(preset, OnImages) else preset
        assert callable(scorer)
        found = scorer(subject)
    else:
        found = combine(subject, sites)
        if isinstance(preset, Adjusted):
            found = preset.adjust(found, subject)
    values = found.double().cpu().numpy()
    check_finite(name, values[~np.isnan(values)])
    return np.asarray(values, np.float64)
