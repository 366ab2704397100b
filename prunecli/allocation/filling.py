"""Run a rule: check that the budget can be met, and hand out what the rule has left of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.problem import ALLOCATIONS, Problem, next_width
from prunecli.errors import GateError

if TYPE_CHECKING:
    from prunecli.cost.model import Widths


def allocate(rule: str, problem: Problem) -> Widths:
    """Return the widths that a rule chooses, filled up to the budget and never above it.

    Raises `GateError` (`INFEASIBLE_BUDGET`) with the lowest reachable cost when even the smallest
    widths exceed the budget.
    """
    check_feasible(problem)
    if problem.load(problem.full) <= 1.0:
        return problem.full
    widths = ALLOCATIONS.get(rule)(problem)
    return refill(problem, widths)


def check_feasible(problem: Problem) -> None:
    """Raise `GateError` when the budget is below what the narrowest network costs."""
    lowest = problem.cost.cost(problem.smallest)
    for kind, ceiling in problem.ceilings.items():
        if lowest[kind] <= ceiling:
            continue
        dense = problem.cost.dense[kind]
        raise GateError(
            f"{kind} cannot go down to {ceiling / dense:.3f} of the model: "
            f"the lowest reachable is {lowest[kind] / dense:.3f}",
            code="INFEASIBLE_BUDGET",
            where=_what_holds(problem, kind),
            hint=f"ask for {_reachable(kind, lowest[kind] / dense)}; a smaller --align, "
            "--min-width or fewer --exclude patterns reach lower",
        )


def _reachable(kind: str, lowest: float) -> str:
    """Return the option that asks for as little as can be reached, rounded to the safe side."""
    if kind == "channels":
        return f"--sparsity {math.floor((1 - lowest) * 100 - 1e-6) / 100:g} or less"
    return f"--{kind} {math.ceil(lowest * 100 + 1e-6) / 100:g} or more"


def _what_holds(problem: Problem, kind: str) -> str:
    """Name the groups that cost most where everything is as narrow as allowed."""
    smallest = problem.smallest
    share = problem.cost.gradient(kind, smallest) * smallest / problem.cost.dense[kind]
    worst = [at for at in np.argsort(-share)[:3] if share[at] > 0]
    held = [
        f"{problem.groups[at].name} at {smallest[at]} of {problem.groups[at].width}" for at in worst
    ]
    return "held up by " + (", ".join(held) if held else "layers that cannot be cut")


CLOSE = 0.97
"""The part of a budget that has to be used; the default alignment may leave more than the rest."""


def refill(problem: Problem, widths: Widths, *, enough: float = 1.0) -> Widths:
    """Give channels back, best saliency per cost first, while less than `enough` is used."""
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
        if problem.load(trial) <= 1.0:
            widths = trial
        else:
            blocked[group] = True
    return widths
