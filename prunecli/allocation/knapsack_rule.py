"""The widths that keep most saliency: a multiple-choice knapsack, linearised where it must be."""

from __future__ import annotations

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
    from collections.abc import Callable, Iterator

    from prunecli.cost import Widths

EXACT = 1 << 16
"""Costs that are whole multiples of a unit are not rounded where the network has so few units."""

FINE = 4096
"""Other costs are rounded to this part of what there is to cut."""

STEPS = 4
"""Targets on the way from the dense cost to the budget, each with costs at the widths before it."""

ROUNDS = 4
"""Rounds at the budget itself, until the widths no longer change."""

EMPHASIS = 8
"""Power of its load with which a cost kind counts where the budget limits several."""


@ALLOCATIONS.register(
    "knapsack",
    summary="Keep as much saliency as the budget holds: exact multiple-choice knapsack.",
    source="HALP, Shen et al. 2022, arXiv 2110.10811; the exact solver: prunecli",
)
def knapsack(problem: Problem) -> Widths:
    """Return the widths that keep the most saliency within the budget.

    Per group one chooses how many of its most salient channels stay; dynamic programming solves
    that exactly where a channel costs the same whatever the other widths are (channels, a table
    per layer). FLOPs and parameters are products of two widths: as in HALP, a group is charged at
    the current widths of its neighbours, for targets that decay to the budget, and then again
    until nothing changes. The capacity is the largest whose widths keep the *true* cost; of all
    rounds, and of `greedy`, the widths that keep most saliency are taken. That is then not
    proven to be the optimum.

    Costs are rounded to 1/4096 of what there is to cut, unless they are whole multiples of a unit
    in a network of at most 65,536 of these. Where the budget limits several kinds of cost, those
    nearest to their ceiling count most.
    """
    worth = [_worth(problem, group) for group in range(len(problem.groups))]

    def kept(widths: Widths) -> float:
        places = (
            int(np.searchsorted(options, width))
            for options, width in zip(problem.widths, widths, strict=True)
        )
        return sum(float(own[at]) for own, at in zip(worth, places, strict=True))

    best = refill(problem, greedy(problem))
    for widths in _rounds(problem, worth):
        if problem.load(widths) <= 1.0:
            best = max(best, refill(problem, widths), key=kept)
    return best


def _worth(problem: Problem, group: int) -> Values:
    """Return the saliency kept at each allowed width; what a signal cannot see is worth nothing."""
    total = np.append(0.0, np.cumsum(np.nan_to_num(problem.sorted_saliency(group))))
    return np.asarray(total[problem.widths[group]], np.float64)


def _rounds(problem: Problem, worth: list[Values]) -> Iterator[Widths]:
    """Yield the widths of every round, the last of them at the budget."""
    widths = problem.full
    tables = _tables(problem, widths)
    separable = all(map(np.allclose, tables, _tables(problem, problem.smallest)))
    if not separable:
        for target in decayed_targets(problem.load(widths), 1.0, STEPS):
            widths = _solve(problem, worth, _tables(problem, widths), float(target))
            yield widths
    for _ in range(1 if separable else ROUNDS):
        found = _solve(problem, worth, _tables(problem, widths), 1.0)
        yield found
        if bool((found == widths).all()):
            return
        widths = found


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


def _solve(problem: Problem, worth: list[Values], tables: list[Values], target: float) -> Widths:
    """Return the best widths at the largest capacity whose true load is within `target`."""
    units = whole_units(tables, most=EXACT, fine=FINE)
    most = sum(int(own.max()) for own in units)
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
