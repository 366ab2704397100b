"""Groups of one width: an allocation sees each set of them as a single group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prunecli.allocation.problem import Problem
    from prunecli.cost.model import Latency, Widths

Members = tuple[tuple[int, ...], ...]
"""The groups of every set, by number; a group without a partner is a set of its own."""


@dataclass(frozen=True)
class Linked:
    """A problem whose groups are sets of groups of one width, and the way back."""

    problem: Problem
    members: Members

    def expand(self, widths: Widths) -> Widths:
        """Return the width of every group."""
        return widths[self.set_of]

    @cached_property
    def set_of(self) -> NDArray[np.int64]:
        """The number of the set of every group."""
        found = np.zeros(sum(map(len, self.members)), np.int64)
        for at, own in enumerate(self.members):
            found[list(own)] = at
        return found


def linked(problem: Problem, links: Sequence[Sequence[int]]) -> Linked:
    """Return a problem in which the groups of every link have one width.

    The channels of a set are those of its groups by rank: what is lost first of each goes together,
    and is worth as much as all of it. A set has the widths that all of its groups may have. Groups
    of which some channels are gone already, and others that stay whole, are not linked.
    """
    members = _members(problem, links)
    matrix = np.zeros((len(problem.groups), len(members)))
    for at, own in enumerate(members):
        matrix[list(own), at] = 1.0
    groups, saliency, first = [], [], 0
    for own in members:
        group = problem.groups[own[0]]
        groups.append(replace(group, first=first))
        first += group.width
        if len(own) == 1:
            saliency.append(problem.saliency[group.atoms])
        else:
            saliency.append(np.sum([problem.sorted_saliency(one) for one in own], axis=0))
    cost = problem.cost
    found = replace(
        problem,
        groups=tuple(groups),
        saliency=np.concatenate([*saliency, np.zeros(0)]),
        cost=replace(
            cost,
            counts=cost.counts @ matrix,
            dense_widths=cost.dense_widths[[own[0] for own in members]],
            latency=None if cost.latency is None else _LinkedLatency(cost.latency, matrix),
        ),
        widths=tuple(_common([problem.widths[one] for one in own]) for own in members),
        shapes=tuple(
            tuple(shape for one in own for shape in problem.shapes[one]) for own in members
        )
        if problem.shapes
        else (),
        importance=None if problem.importance is None else problem.importance @ matrix,
    )
    return Linked(found, members)


def _members(problem: Problem, links: Sequence[Sequence[int]]) -> Members:
    """Return the sets, in the order of their first groups."""
    kept = [
        tuple(link)
        for link in links
        if len({int(problem.widths[one][-1]) for one in link}) == 1
        and len({problem.groups[one].width for one in link}) == 1
    ]
    alone = set(range(len(problem.groups))) - {one for link in kept for one in link}
    return tuple(sorted([*kept, *((one,) for one in alone)]))


def _common(options: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    found = options[0]
    for other in options[1:]:
        found = np.intersect1d(found, other)
    return found


@dataclass(frozen=True)
class _LinkedLatency:
    """Predicts from the widths of sets; `matrix` is [groups, sets], 1 for a member."""

    latency: Latency
    matrix: NDArray[np.float64]

    def predict(self, widths: Widths, *, activations: float) -> float:
        return self.latency.predict(self._expanded(widths), activations=activations)

    def gradient(self, widths: Widths, *, activations: NDArray[np.float64]) -> NDArray[np.float64]:
        alike = activations / self.matrix.sum(0)  # of the groups of a set together
        per_group = self.latency.gradient(self._expanded(widths), activations=self.matrix @ alike)
        return np.asarray(per_group @ self.matrix)

    def _expanded(self, widths: Widths) -> Widths:
        return np.asarray(self.matrix @ widths, np.int64)
