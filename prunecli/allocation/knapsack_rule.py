"""The widths that keep most saliency: a multiple-choice knapsack, linearised where it must be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.filling import refill
from prunecli.allocation.greedy import greedy
from prunecli.allocation.knapsack import (
    Knapsack,
    Values,
    decayed_targets,
    solve_knapsack,
    whole_units,
)
from prunecli.allocation.problem import ALLOCATIONS, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from prunecli.cost.model import Widths

EXACT = 1 << 16
"""Costs that are whole multiples of a unit are not rounded where the network has so few units."""

FINE = 4096
"""Other costs are rounded to this part of what there is to cut."""

STEPS = 4
"""Targets on the way from the dense cost to the budget, each with costs at the widths before it."""

NEAR = (0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625, 0.03125, 0.015625)
"""How far, as shares of a group, widths may move in each round at the budget."""

EMPHASIS = 8
"""Power of its load with which a cost kind counts where the budget limits several."""


@ALLOCATIONS.register(
    "knapsack",
    summary="Keep most saliency: multiple-choice knapsack, exact for costs that add up by group.",
    source="HALP, Shen et al. 2022, arXiv 2110.10811; the exact solver: prunecli",
)
def knapsack(problem: Problem) -> Widths:
    """Return the widths that keep the most saliency within the budget.

    Per group one chooses how many of its most salient channels stay; dynamic programming solves
    that exactly where a channel costs the same whatever the other widths are (channels, a table
    per layer). FLOPs and parameters are products of two widths: as in HALP, a group is charged at
    the current widths of its neighbours, for targets that decay to the budget. That, or `greedy`
    where it keeps more, is then improved among widths nearby, where such costs are nearly right.
    The capacity is always the largest whose widths keep the *true* cost. The result keeps at least
    as much saliency as `greedy`, but is not proven to be the optimum.

    Costs are rounded to 1/4096 of what there is to cut, unless they are whole multiples of a unit
    in a network of at most 65,536 of these. Where the budget limits several kinds of cost, those
    nearest to their ceiling count most.
    """
    best = refill(problem, greedy(problem))
    tables = _tables(problem, problem.full)
    if all(map(np.allclose, tables, _tables(problem, problem.smallest))):
        return _better(problem, best, _solve(problem, tables, 1.0))
    widths = problem.full
    for target in decayed_targets(problem.load(widths), 1.0, STEPS):
        widths = _solve(problem, _tables(problem, widths), float(target))
    best = _better(problem, best, widths)
    for share in NEAR:
        near = replace(problem, widths=_nearby(problem, best, share))
        best = _better(problem, best, _solve(near, _tables(near, best), 1.0))
    return best


def _better(problem: Problem, best: Widths, other: Widths) -> Widths:
    """Return the widths that keep more saliency within the budget, the first where both do."""
    if problem.load(other) > 1.0:
        return best
    return max(best, refill(problem, other), key=lambda widths: _kept(problem, widths))


def _kept(problem: Problem, widths: Widths) -> float:
    return sum(float(_total(problem, group)[width]) for group, width in enumerate(widths.tolist()))


def _total(problem: Problem, group: int) -> Values:
    """Return the saliency kept at every width; what a signal cannot see is worth nothing."""
    return np.append(0.0, np.cumsum(np.nan_to_num(problem.sorted_saliency(group))))


def _nearby(problem: Problem, widths: Widths, share: float) -> tuple[NDArray[np.int64], ...]:
    """Return the allowed widths at most a share of each group away, one step at least."""
    near = []
    for options, width in zip(problem.widths, widths.tolist(), strict=True):
        at = int(np.searchsorted(options, width))
        low = min(options[max(at - 1, 0)], width - share * options[-1])
        high = max(options[min(at + 1, options.size - 1)], width + share * options[-1])
        near.append(options[(options >= low) & (options <= high)])
    return tuple(near)


def _tables(problem: Problem, widths: Widths) -> list[Values]:
    """Return what each allowed width of each group costs, all others at `widths`.

    One limited kind is charged in its own units; several are summed as shares of their ceilings.
    """
    costs = problem.cost.cost(widths)
    loads = {kind: costs[kind] / ceiling for kind, ceiling in problem.ceilings.items()}
    worst = max(loads.values())
    shares = {
        kind: (load / worst) ** EMPHASIS / problem.ceilings[kind] for kind, load in loads.items()
    }
    weights = shares if len(shares) > 1 else dict.fromkeys(shares, 1.0)
    tables = []
    for group, options in enumerate(problem.widths):
        trial = widths.copy()
        table = np.zeros(options.size)
        for at, width in enumerate(options.tolist() if options.size > 1 else []):
            trial[group] = width
            found = problem.cost.cost(trial)
            table[at] = sum(weight * found[kind] for kind, weight in weights.items())
        tables.append(table - table[0])
    return tables


def _solve(problem: Problem, tables: list[Values], target: float) -> Widths:
    """Return the best widths at the largest capacity whose true load is within `target`."""
    units = whole_units(tables, most=EXACT, fine=FINE)
    most = sum(int(own.max()) for own in units)
    worth = [_total(problem, group)[options] for group, options in enumerate(problem.widths)]
    solved = solve_knapsack(worth, units, most)
    chosen = _largest(solved, most, lambda widths: problem.load(widths) <= target, problem)
    return problem.smallest if chosen is None else chosen


def _largest(
    solved: Knapsack, most: int, fits: Callable[[Widths], bool], problem: Problem
) -> Widths | None:
    """Return the widths of the largest capacity that fits, by bisection; None where none does."""

    def widths(capacity: int) -> Widths:
        chosen = solved.at(capacity)
        return np.asarray(
            [options[at] for options, at in zip(problem.widths, chosen, strict=True)], np.int64
        )

    low, high, found = solved.least, most, None
    while low <= high:
        middle = (low + high) // 2
        trial = widths(middle)
        if fits(trial):
            low, found = middle + 1, trial
        else:
            high = middle - 1
    return found
