"""Any number of grid signals in one pass over the images, as running sums per site.

Nothing is kept of an image but sums: memory does not depend on the number of images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.progress import Step
from prunecli.signals.components import (
    METRICS,
    REDUCTIONS,
    SCALINGS,
    ScalingFacts,
    Signal,
)
from prunecli.signals.derive import Batch, batches_of
from prunecli.signals.sources import Source, sources_of
from prunecli.signals.subject import Site, Subject, no_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prunecli.signals.places import Places


def measure(signals: Sequence[Signal], subject: Subject) -> dict[Signal, list[Site]]:
    """Return, for every signal, its value at every site; the images are looked at once."""
    asked = dict.fromkeys(signals)
    sources = {base: sources_of(base, subject) for base in {s.base_input for s in asked}}
    sums = _Sums(sources)
    still = [signal for signal in asked if not signal.needs_data]
    sums.add(still, None, 1)
    moving = [signal for signal in asked if signal.needs_data]
    if moving:
        images = 0
        for batch in batches_of(moving, subject):
            sums.add(moving, batch, batch.images)
            images += batch.images
            subject.progress(Step("scoring", images))
        if not images:
            raise no_images(subject.signal)
        sums.images = images
    return {signal: sums.sites(signal, subject) for signal in asked}


class _Sums:
    """Running sums per base input, site, metric and reduction."""

    def __init__(self, sources: Mapping[str, Sequence[Source]]) -> None:
        self.sources = sources
        self.images = 1
        self.totals: dict[tuple[str, int, str, str], Tensor] = {}
        self.elements: dict[tuple[str, int], Tensor] = {}

    def add(self, signals: Sequence[Signal], batch: Batch | None, images: int) -> None:
        """Add what a batch says about every signal; `None` stands for weights without images."""
        wanted: dict[str, dict[str, set[str]]] = {}
        for signal in signals:
            metrics = wanted.setdefault(signal.base_input, {})
            metrics.setdefault(signal.pointwise_metric, set()).add(signal.reduction)
        for base, metrics in wanted.items():
            for at, source in enumerate(self.sources[base]):
                scalars = source.scalars(batch)
                self.elements.setdefault((base, at), source.elements(scalars))
                for metric, reductions in metrics.items():
                    values = METRICS.get(metric).function(scalars)
                    for reduction, total in _reduce(values, reductions, source.places):
                        key = (base, at, metric, reduction)
                        share = total.sum(0) * (images / len(total))
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
    values: Tensor, reductions: Iterable[str], places: Places
) -> Iterable[tuple[str, Tensor]]:
    """Yield the reduced values `[samples, atoms]`; reductions that sum the same share the sum."""
    sums: dict[Callable[[Tensor], Tensor], Tensor] = {}
    for name in sorted(reductions):
        reduction = REDUCTIONS.get(name)
        if reduction.inside not in sums:
            sums[reduction.inside] = places.sum(reduction.inside(values).double())
        yield name, reduction.outside(sums[reduction.inside])
