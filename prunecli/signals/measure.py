"""Any number of grid signals in one pass over the images, as running sums per site.

Nothing is kept of an image but sums: memory does not depend on the number of images.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.preflight.pruning import no_images
from prunecli.processes import pooled, sharing
from prunecli.progress import Step
from prunecli.signals.components import (
    BASE_INPUTS,
    METRICS,
    REDUCTIONS,
    SCALINGS,
    Reduction,
    Scalars,
    ScalingFacts,
    Signal,
    kernel_sums,
)
from prunecli.signals.derive import Batch, batches_of
from prunecli.signals.sites import inputs_of
from prunecli.signals.sources import Source, sources_of
from prunecli.signals.subject import SiteScore, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prunecli.evaluation.batches import Batches
    from prunecli.signals.places import Places


def measure(signals: Sequence[Signal], subject: Subject) -> dict[Signal, list[SiteScore]]:
    """Return, for every signal, its value at every site; the images are looked at once."""
    asked = dict.fromkeys(signals)
    sources = {base: sources_of(base, subject) for base in {s.base_input for s in asked}}
    sums = RunningSums(sources)
    still = [signal for signal in asked if not signal.needs_data]
    sums.add(still, None)
    moving = [signal for signal in asked if signal.needs_data]
    if moving:
        sums.images = 0
        if sharing().count == 1:
            _look(moving, subject, sums)
        else:
            sums.take(pooled(partial(_part, moving, subject, sources)))
        if not sums.images:
            raise no_images(subject.signal)
    return {signal: sums.sites(signal, subject) for signal in asked}


def _look(signals: Sequence[Signal], subject: Subject, sums: RunningSums) -> None:
    """Add what all images of a subject say about signals."""
    for batch in batches_of(signals, subject):
        sums.add(signals, batch)
        sums.images += batch.images
        subject.progress(Step("scoring", sums.images))


def _part(
    signals: Sequence[Signal], subject: Subject, sources: Mapping[str, Sequence[Source]]
) -> Part:
    """Return what the batches of this process say: of several, each takes every so manieth."""
    processes, source = sharing(), subject.batches
    assert source is not None

    def own() -> Batches:
        return itertools.islice(source(), processes.index, None, processes.count)

    sums = RunningSums(sources)
    sums.images = 0
    with torch.no_grad():
        _look(signals, dataclasses.replace(subject, batches=own), sums)
    totals = {key: value.cpu() for key, value in sums.totals.items()}
    return totals, {key: value.cpu() for key, value in sums.elements.items()}, sums.images


CACHED = 1 << 17
"""Scalars that are worked on at a time: several passes over them stay in a processor's cache."""

Summing = Callable[[Tensor], Tensor]

Part = tuple[dict[tuple[str, int, str, str], Tensor], dict[tuple[str, int], Tensor], int]
"""Totals, elements and images of `RunningSums`: what one of several processes has found."""


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

    def take(self, parts: Sequence[Part]) -> None:
        """Add the sums over images that several processes have found."""
        for totals, elements, images in parts:
            for key, total in totals.items():
                self.totals[key] = self.totals[key] + total if key in self.totals else total
            self.elements = {**elements, **self.elements}
            self.images += images

    def sites(self, signal: Signal, subject: Subject) -> list[SiteScore]:
        """Return the scaled means of one signal at every site."""
        found = []
        images = self.images if signal.needs_data else 1
        inputs = inputs_of(subject)
        activation = BASE_INPUTS.get(signal.base_input).activation
        for at, source in enumerate(self.sources[signal.base_input]):
            total = self.totals[signal.base_input, at, signal.pointwise_metric, signal.reduction]
            atoms, elements = source.places.atoms, self.elements[signal.base_input, at]
            facts = ScalingFacts(
                elements if source.dense is None else source.dense,
                elements,
                inputs[atoms] if activation else torch.ones_like(elements),
                torch.as_tensor(subject.weights_removed)[atoms],
                torch.as_tensor(subject.flops_removed)[atoms],
                torch.as_tensor(subject.latency_removed)[atoms],
            )
            values = SCALINGS.get(signal.scaling)(total.double().cpu() / images, facts)
            found.append(SiteScore(atoms, values))
        return found


def _reduce(
    scalars: Scalars, metrics: Mapping[str, Iterable[str]], places: Places
) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """Yield the reduced values `[samples, atoms]`; reductions that sum the same share the sum."""
    rules = {
        name: {reduction: _rule(reduction, scalars) for reduction in reductions}
        for name, reductions in metrics.items()
    }
    parts: dict[tuple[str, Summing | Reduction], list[Tensor]] = {}
    for few in scalars.split(CACHED):
        for name, own in rules.items():
            values = METRICS.get(name).function(few)
            for key, rule in {_summing(rule): rule for rule in own.values()}.items():
                parts.setdefault((name, key), []).append(_summed(rule, values, few.kernel))
    sums = {key: places.sum(torch.cat(found).double()) for key, found in parts.items()}
    for name, own in rules.items():
        for reduction, rule in own.items():
            found = sums[name, _summing(rule)]
            yield (name, reduction), found if rule.by_kernel else rule.outside(found)


def _rule(name: str, scalars: Scalars) -> Reduction:
    """Return a reduction; where there are no kernels, all of a channel is one."""
    rule = REDUCTIONS.get(name)
    return dataclasses.replace(rule, by_kernel=rule.by_kernel and scalars.kernel > 0)


def _summing(rule: Reduction) -> Summing | Reduction:
    """Return what reductions with the same sums have in common."""
    return rule if rule.by_kernel else rule.inside


def _summed(rule: Reduction, values: Tensor, kernel: int) -> Tensor:
    """Return a channel's sums `[samples, channels]`, before `outside` is applied to them."""
    return rule.inside(rule.outside(kernel_sums(values, kernel)) if rule.by_kernel else values)
