"""Which channels go at a removal: a pure choice from saliencies, costs and the widths to reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prunecli.allocation import Problem, Saliency
    from prunecli.cost.model import Widths
    from prunecli.graph.coupling.groups import ChannelGroup

REMOVALS = 30
"""Removals on the way to a budget where nobody says how many channels go at a time (HALP)."""


def exponential(start: float, end: float, steps: int) -> tuple[float, ...]:
    """Return the costs to reach after every step, each the same fraction of the one before.

    Source: Shen et al. 2022 (HALP), arXiv 2110.10811: `L_k = L_0^(1 - k/S) L_S^(k/S)`.

    >>> [round(cost, 3) for cost in exponential(10, 5.5, 4)]
    [8.612, 7.416, 6.387, 5.5]
    """
    return tuple(start ** (1 - k / steps) * end ** (k / steps) for k in range(1, steps + 1))


def remove(
    problem: Problem,
    keep: NDArray[np.bool_],
    target: Widths,
    *,
    load: float = 0.0,
    most: int | None = None,
) -> NDArray[np.bool_]:
    """Return what is kept after the least salient channels per cost have gone, one by one.

    `problem.saliency` has one entry per atom; those that have gone before are not looked at.
    A group loses channels until it has its width in `target`, and the costs are taken anew after
    every channel. At least one channel goes; it ends when the cost is `load` times the budget, when
    `most` channels have gone, or when every group is at its target. Ties go to the lowest index.
    """
    keep = keep.copy()
    order = [_ascending(group, keep, problem.saliency) for group in problem.groups]
    widths = widths_of(problem.groups, keep)
    start = widths.sum()
    while (widths > target).any():
        gone = int(start - widths.sum())
        if gone and (problem.load(widths) <= load or (most is not None and gone >= most)):
            break
        price = np.maximum(problem.load_gradient(widths), 1e-30)
        worth = [
            problem.saliency[atoms[len(atoms) - width]] if width > end else np.inf
            for atoms, width, end in zip(order, widths.tolist(), target.tolist(), strict=True)
        ]
        group = int(np.argmin(np.asarray(worth) / price))
        keep[order[group][len(order[group]) - widths[group]]] = False
        widths[group] -= 1
    return keep


def removals_left(gone: int, *, channels: int, per_removal: int | None) -> int:
    """Return how many removals are to come after `gone`, with so many channels too many."""
    if not channels:
        return 0
    if per_removal is None:
        return min(max(REMOVALS - gone, 1), channels)
    return math.ceil(channels / per_removal)


def widths_of(groups: Sequence[ChannelGroup], keep: NDArray[np.bool_]) -> Widths:
    """Return the width of every group."""
    return np.asarray([int(keep[group.atoms].sum()) for group in groups], np.int64)


def _ascending(
    group: ChannelGroup, keep: NDArray[np.bool_], saliency: Saliency
) -> NDArray[np.int64]:
    atoms = np.flatnonzero(keep[group.atoms]) + group.first
    return atoms[np.argsort(saliency[atoms], kind="stable")]
