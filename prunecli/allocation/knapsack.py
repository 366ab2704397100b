"""The multiple-choice knapsack, solved exactly over integer costs, and targets that decay to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunecli.errors import GateError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

Costs = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Knapsack:
    """The best choice for every capacity up to the one that it was solved for.

    `choices[c, w]` is the option of class `c` where the classes up to `c` may cost `w` in all, with
    the cheapest option of each class taken for nothing: `least` is the sum of what those cost.
    `value[w]` is the best total value, `-inf` where there is none.
    """

    choices: NDArray[np.int32]
    extra: tuple[Costs, ...]
    value: Values
    least: int

    def at(self, capacity: int) -> NDArray[np.int64]:
        """Return the option of every class at a capacity, or raise `GateError` below the least."""
        left = min(capacity - self.least, self.value.size - 1)
        if left < 0:
            raise GateError(
                f"a capacity of {capacity} holds no choice: the cheapest costs {self.least}",
                code="INFEASIBLE_BUDGET",
            )
        chosen = np.zeros(len(self.extra), np.int64)
        for item in range(len(self.extra) - 1, -1, -1):
            chosen[item] = self.choices[item, left]
            left -= int(self.extra[item][chosen[item]])
        return chosen


def solve_knapsack(values: Sequence[Values], costs: Sequence[Costs], capacity: int) -> Knapsack:
    """Choose one option of every class: the highest total value within `capacity`, exactly.

    `values[c]` and `costs[c]` (whole numbers, also negative) have one entry per option of class
    `c`. Dynamic programming over the capacity, in `options * capacity` steps of numpy: the best
    value of the first classes at every capacity follows from that of one class fewer. Where two
    choices are worth the same, the cheaper one of the later class is taken. Raises `InputError` for
    a class without options.

    Precedence (no channel before a more important one of its group) is in the options: the first
    `k` channels of a group are one option. As HALP (Shen et al. 2022, arXiv 2110.10811), which
    solves the same problem by a heuristic on single channels.

    >>> kept = [np.array([0., 5, 9, 10]), np.array([0., 6, 8])]
    >>> solve_knapsack(kept, [np.array([0, 3, 4, 5]), np.array([0, 4, 5])], 6).at(6).tolist()
    [3, 0]
    """
    if not all(len(options) for options in costs):
        raise InputError("a class of the knapsack has no options", code="NO_OPTIONS")
    least = sum(int(options.min()) for options in costs)
    extra = tuple(np.asarray(options - options.min(), np.int64) for options in costs)
    room = max(capacity - least, 0)
    best = np.zeros(room + 1)
    choices = np.zeros((len(costs), room + 1), np.int32)
    for item, (worth, price) in enumerate(zip(values, extra, strict=True)):
        found = np.full(room + 1, -np.inf)
        for option in _undominated(worth, price, room):
            cost = int(price[option])
            reached = best[: room + 1 - cost] + worth[option]
            better = reached > found[cost:]
            found[cost:][better] = reached[better]
            choices[item, cost:][better] = option
        best = found
    return Knapsack(choices, extra, best, least)


def _undominated(worth: Values, price: Costs, room: int) -> list[int]:
    """Return the options that fit and for which no other is worth as much and costs no more."""
    order = np.lexsort((-worth, price))
    order = order[price[order] <= room]
    before = np.append(-np.inf, np.maximum.accumulate(worth[order]))[:-1]
    return [int(option) for option in order[worth[order] > before]]


def whole_units(tables: Sequence[Values], *, most: int, fine: int) -> list[Costs]:
    """Return costs as whole numbers whose largest choices sum to `most` at most.

    Costs that are whole multiples of one unit stay exact where so few units do; others are rounded
    to the nearest of about `fine` units of the whole.
    """
    total = sum(float(table.max() - table.min()) for table in tables)
    whole = [np.rint(table) for table in tables]
    if all(np.abs(table - own).max() < 1e-6 for table, own in zip(tables, whole, strict=True)):
        unit = int(np.gcd.reduce(np.concatenate(whole).astype(np.int64))) or 1
        if total <= most * unit:
            return [(own // unit).astype(np.int64) for own in whole]
    scale = fine / total if total else 0.0
    return [np.rint(table * scale).astype(np.int64) for table in tables]


def decayed_targets(start: float, end: float, steps: int) -> Values:
    """Return `start ** (1 - k / steps) * end ** (k / steps)` for `k = 1 ... steps`, as HALP does.

    >>> decayed_targets(10, 5.5, 4).round(6).tolist()
    [8.611735, 7.416198, 6.386634, 5.5]
    """
    done = np.arange(1, steps + 1) / steps
    return np.asarray(start ** (1 - done) * end**done, np.float64)
