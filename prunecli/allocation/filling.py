"""Run a rule: check that the budget can be met, and hand out what the rule has left of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.problem import ALLOCATIONS, Problem, next_width
from prunecli.allocation.remaining import limits, what_stays
from prunecli.errors import InfeasibleBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.cost.model import Widths


def allocate(rule: str, problem: Problem) -> Widths:
    """Return the widths that a rule chooses, filled up to the budget and never above it.

    Raises `InfeasibleBudgetError` with the lowest reachable cost, and what keeps it up,
    when even the smallest widths exceed the budget.
    """
    check_feasible(problem)
    if problem.load(problem.full) <= 1.0:
        return problem.full
    widths = ALLOCATIONS.get(rule)(problem)
    return refill(problem, widths)


def check_feasible(problem: Problem) -> None:
    """Raise `InfeasibleBudgetError` when the budget is below what the narrowest network costs."""
    lowest = problem.cost.cost(problem.smallest)
    for kind, ceiling in problem.ceilings.items():
        if lowest[kind] <= ceiling:
            continue
        dense = problem.cost.dense[kind]
        more = " and ".join(limits(problem))
        raise InfeasibleBudgetError(
            f"{kind} cannot go down to {_share(ceiling / dense)} of the model: "
            f"the lowest reachable is {_share(lowest[kind] / dense)}",
            kind=kind,
            lowest=lowest[kind] / dense,
            where=what_stays(problem, kind),
            hint=f"ask for {_reachable(kind, lowest[kind] / dense)}"
            + (f"; {more} would reach lower" if more else ""),
        )


def _share(part: float) -> str:
    return f"{part:.3f}" if part >= 0.001 else f"{part:.1g}"


def _reachable(kind: str, lowest: float) -> str:
    """Return the option that asks for as little as can be reached, rounded to the safe side."""
    if kind == "channels":
        return f"--sparsity {math.floor((1 - lowest) * 100 - 1e-6) / 100:g} or less"
    return f"--{kind} {math.ceil(lowest * 100 + 1e-6) / 100:g} or more"


CLOSE = 0.97
"""The part of a budget that has to be used; the default alignment may leave more than the rest."""


def refill(
    problem: Problem,
    widths: Widths,
    *,
    enough: float = 1.0,
    may: Callable[[Widths], bool] = lambda _: True,
) -> Widths:
    """Give channels back, best saliency per cost first, while less than `enough` is used.

    Widths that are not what they `may` be are left out.
    """
    widths = widths.copy()
    ranked = [problem.sorted_saliency(group) for group in range(len(problem.groups))]
    blocked = np.zeros(len(problem.groups), np.bool_)
    while problem.load(widths) < enough:
        gradient = np.maximum(problem.load_gradient(widths), 1e-30)
        value = np.full(len(problem.groups), -np.inf)
        for group, options in enumerate(problem.widths):
            wider = next_width(options, widths[group])
            if wider is not None and not blocked[group]:
                gain = ranked[group][widths[group] : wider].mean()
                value[group] = gain / gradient[group]
        if not np.isfinite(value).any():
            break
        group = int(np.argmax(value))
        trial = widths.copy()
        trial[group] = next_width(problem.widths[group], widths[group]) or widths[group]
        if problem.load(trial) <= 1.0 and may(trial):
            widths = trial
        else:
            blocked[group] = True
    return widths
