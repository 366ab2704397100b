"""Any number of grid signals in one pass over the images, as running sums per site.

Nothing is kept of an image but sums: memory does not depend on the number of images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.progress import Step
from prunecli.signals.components import (
    METRICS,
    REDUCTIONS,
    SCALINGS,
    Scalars,
    ScalingFacts,
    Signal,
)
from prunecli.signals.derive import Batch, batches_of
from prunecli.signals.sources import Source, sources_of
from prunecli.signals.subject import Site, Subject, no_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prunecli.signals.places import Places


def measure(signals: Sequence[Signal], subject: Subject) -> dict[Signal, list[Site]]:
    """Return, for every signal, its value at every site; the images are looked at once."""
    asked = dict.fromkeys(signals)
    sources = {base: sources_of(base, subject) for base in {s.base_input for s in asked}}
    sums = RunningSums(sources)
    still = [signal for signal in asked if not signal.needs_data]
    sums.add(still, None)
    moving = [signal for signal in asked if signal.needs_data]
    if moving:
        images = 0
        for batch in batches_of(moving, subject):
            sums.add(moving, batch)
            images += batch.images
            subject.progress(Step("scoring", images))
        if not images:
            raise no_images(subject.signal)
        sums.images = images
    return {signal: sums.sites(signal, subject) for signal in asked}


CACHED = 1 << 17
"""Scalars that are worked on at a time: several passes over them stay in a processor's cache."""

Summing = Callable[[Tensor], Tensor]


class RunningSums:
    """Running sums per base input, site, metric and reduction."""

    def __init__(self, sources: Mapping[str, Sequence[Source]]) -> None:
        self.sources = sources
        self.images = 1
        self.totals: dict[tuple[str, int, str, str], Tensor] = {}
        self.elements: dict[tuple[str, int], Tensor] = {}

    def add(self, signals: Sequence[Signal], batch: Batch | None) -> None:
        """Add what a batch says about every signal; `None` stands for weights without images."""
        wanted: dict[str, dict[str, set[str]]] = {}
        for signal in signals:
            metrics = wanted.setdefault(signal.base_input, {})
            metrics.setdefault(signal.pointwise_metric, set()).add(signal.reduction)
        for base, metrics in wanted.items():
            for at, source in enumerate(self.sources[base]):
                for scalars, count in source.scalars(batch):
                    self.elements.setdefault((base, at), source.elements(scalars))
                    for (metric, reduction), total in _reduce(scalars, metrics, source.places):
                        key = (base, at, metric, reduction)
                        share = total.sum(0) * (count / len(total))
                        self.totals[key] = self.totals[key] + share if key in self.totals else share

    def sites(self, signal: Signal, subject: Subject) -> list[Site]:
        """Return the scaled means of one signal at every site."""
        found = []
        images = self.images if signal.needs_data else 1
        for at, source in enumerate(self.sources[signal.base_input]):
            total = self.totals[signal.base_input, at, signal.pointwise_metric, signal.reduction]
            atoms, elements = source.places.atoms, self.elements[signal.base_input, at]
            facts = ScalingFacts(
                elements,
                elements if source.active is None else source.active,
                torch.as_tensor(subject.weights_removed)[atoms],
                torch.as_tensor(subject.flops_removed)[atoms],
            )
            values = SCALINGS.get(signal.scaling)(total.double().cpu() / images, facts)
            found.append(Site(atoms, values))
        return found


def _reduce(
    scalars: Scalars, metrics: Mapping[str, Iterable[str]], places: Places
) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """Yield the reduced values `[samples, atoms]`; reductions that sum the same share the sum."""
    inside = {
        name: {REDUCTIONS.get(reduction).inside for reduction in reductions}
        for name, reductions in metrics.items()
    }
    parts: dict[tuple[str, Summing], list[Tensor]] = {}
    for few in scalars.split(CACHED):
        for name, functions in inside.items():
            values = METRICS.get(name).function(few)
            for function in functions:
                parts.setdefault((name, function), []).append(function(values))
    sums = {key: places.sum(torch.cat(found).double()) for key, found in parts.items()}
    for name, reductions in metrics.items():
        for reduction in reductions:
            rule = REDUCTIONS.get(reduction)
            yield (name, reduction), rule.outside(sums[name, rule.inside])
