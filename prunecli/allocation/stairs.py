"""Widths that are fast: what a rule wants of every group, moved to the steps that are worth it.

A rule says what each group should keep. Time falls in steps (`cost.staircase`), so that of the
widths near that only some are worth having. Which of them, follows from what channels are worth. At
the width that the rule wants, one channel of every group is worth what it costs; below it more, by
its saliency and as the larger share of what is left; above it less. From wide to narrow that step
goes first which loses the least worth for the budget and the time that it saves.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.filling import check_feasible, refill
from prunecli.allocation.problem import ALLOCATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from prunecli.allocation.problem import Problem
    from prunecli.cost.model import Widths

NOTICED = 0.05
"""A step is one where its group takes so much less time on it, as a share."""

EMPHASES = (0.5, 0.7, 0.85)
"""What time counts beside the budget: more until the result is as fast as its cost says."""

AS_FAST = 0.97
"""A result is, where its speed-up times the share of the cost that it keeps comes to this."""

STEEPEST = 4.0
"""How much more or less worth a channel is by its saliency than one at the rule's width."""


LEAST_USED = 0.97
"""How much of a budget is used even where the last channels cost more time than the others."""

STIFF = 2.0
"""Power of its share of the wanted width with which a channel is worth more, or less."""

MUCH_FASTER = 0.02
"""What time has to count more for, as a gain in what `AS_FAST` is about."""


def fast_widths(
    rule: str,
    fine: Problem,
    steps: Problem,
    time: Callable[[Widths], float],
    *,
    finer: Sequence[Problem] = (),
    enough: float = 1.0,
) -> Widths:
    """Return widths of `steps` near those that a rule chooses among those of `fine`.

    `time` is that of the network at some widths. The result keeps the budget, as the narrowest of
    `steps` have to. Where it uses less than `enough` of it, widths of `finer` problems are taken if
    that costs no more time than it does on the whole, and whatever it costs below `LEAST_USED`.
    """
    check_feasible(steps)
    check_feasible(fine)
    wanted = ALLOCATIONS.get(rule)(fine)
    stairs = _Stairs(steps, wanted, time)
    best, speed = steps.smallest, 0.0
    for emphasis in EMPHASES:
        found = stairs.filled(stairs.descended(emphasis), emphasis)
        reached = stairs.speed(found)
        if reached > speed + MUCH_FASTER:
            best, speed = found, reached
        if speed >= AS_FAST:
            break
    best = stairs.freely_widened(best)
    least = min(stairs.speed(best), AS_FAST)
    for other in finer:
        best = refill(other, best, enough=enough, may=lambda trial: stairs.speed(trial) >= least)
    for other in finer:
        best = refill(other, best, enough=min(enough, LEAST_USED))
    return best


@dataclass(frozen=True)
class _Stairs:
    """The widths to choose from, what a rule wants, and what every width is worth and takes."""

    problem: Problem
    wanted: Widths
    time: Callable[[Widths], float]

    @cached_property
    def whole(self) -> float:
        """The time that the budget stands for: the share of the dense one that it leaves."""
        return self.time(self.problem.full) / self.problem.load(self.problem.full)

    @cached_property
    def near(self) -> Widths:
        """The narrowest widths that are not below what is wanted."""
        pairs = zip(self.problem.widths, self.wanted.tolist(), strict=True)
        return np.asarray([own[np.searchsorted(own, width)] for own, width in pairs], np.int64)

    @cached_property
    def steps(self) -> list[NDArray[np.int64]]:
        """The widths of each group beyond which a wider one takes longer, all others near."""
        return [self._steps(group) for group in range(len(self.problem.groups))]

    def _steps(self, group: int) -> NDArray[np.int64]:
        options = self.problem.widths[group]
        trial = self.near.copy()
        trial[group] = 0
        without = self.time(trial)
        kept = [int(options[-1])]
        trial[group] = kept[-1]
        last = self.time(trial) - without
        for width in options[-2::-1].tolist():
            trial[group] = width
            own = self.time(trial) - without
            if own < last * (1 - NOTICED):
                kept.append(width)
                last = own
        least = int(options[0])  # a budget may need it however little time it saves
        return np.asarray(sorted({least, *kept}), np.int64)

    @cached_property
    def worth(self) -> list[NDArray[np.float64]]:
        """What the best `k` channels of each group are worth, for `k` from 0 on."""
        price = np.maximum(self.problem.load_gradient(self.wanted), 1e-30)
        found = []
        for group, wanted in enumerate(self.wanted.tolist()):
            ranked = np.nan_to_num(self.problem.sorted_saliency(group), posinf=np.nan, neginf=0.0)
            ranked = np.nan_to_num(ranked, nan=float(np.nanmax(ranked, initial=0.0)))
            middle = float(ranked[min(wanted, ranked.size) - 1])
            beside = np.divide(
                ranked, middle, out=np.full_like(ranked, STEEPEST), where=middle > 0
            ).clip(1 / STEEPEST, STEEPEST)
            each = price[group] * beside * (wanted / np.arange(1, ranked.size + 1)) ** STIFF
            found.append(np.append(0.0, np.cumsum(each)))
        return found

    def speed(self, widths: Widths) -> float:
        """Return the speed-up times the share of the cost that is kept."""
        return self.problem.load(widths) * self.whole / self.time(widths)

    def descended(self, emphasis: float) -> Widths:
        """Return the widths after the cheapest steps down that keep the budget."""
        problem = self.problem
        pairs = zip(self.steps, self.near.tolist(), strict=True)
        at = np.asarray([np.searchsorted(own, width) for own, width in pairs], np.int64)
        at = np.minimum(at + 1, [own.size - 1 for own in self.steps])  # room for better ones
        widths = np.asarray([own[place] for own, place in zip(self.steps, at, strict=True)])
        load, time = problem.load(widths), self.time(widths)

        def price(group: int) -> float:
            trial = widths.copy()
            trial[group] = self.steps[group][at[group] - 1]
            saved = (1 - emphasis) * (load - problem.load(trial))
            saved += emphasis * (time - self.time(trial)) / self.whole
            lost = self.worth[group][widths[group]] - self.worth[group][trial[group]]
            return float(lost / saved) if saved > 0 else np.inf

        heap = [(price(group), group) for group in range(at.size) if at[group]]
        heapq.heapify(heap)
        while heap and load > 1.0:
            _, group = heapq.heappop(heap)
            now = price(group)
            if heap and now > heap[0][0]:  # neighbours are narrower since it was priced
                heapq.heappush(heap, (now, group))
                continue
            at[group] -= 1
            widths[group] = self.steps[group][at[group]]
            load, time = problem.load(widths), self.time(widths)
            if at[group]:
                heapq.heappush(heap, (price(group), group))
        return widths

    def filled(self, widths: Widths, emphasis: float) -> Widths:
        """Return widths after the best steps up within the budget that are worth their time."""
        widths = widths.copy()

        def price(group: int) -> float:
            """Return how dear the next step is for its worth; infinite where it may not be made."""
            trial = self._wider(widths, group)
            if trial is None:
                return np.inf
            more, time = self.problem.load(trial), self.time(trial)
            if more > 1.0 or more * self.whole / time < min(load * self.whole / now, AS_FAST):
                return np.inf
            paid = (1 - emphasis) * (more - load) + emphasis * (time - now) / self.whole
            gain = self.worth[group][trial[group]] - self.worth[group][widths[group]]
            return paid / max(float(gain), 1e-30)

        load, now = self.problem.load(widths), self.time(widths)
        heap = [(price(group), group) for group in range(widths.size)]
        heapq.heapify(heap)
        while heap and np.isfinite(heap[0][0]):
            _, group = heapq.heappop(heap)
            again = price(group)
            if heap and again > heap[0][0]:
                heapq.heappush(heap, (again, group))
                continue
            trial = self._wider(widths, group)
            if trial is None or not np.isfinite(again):
                continue
            widths = trial
            load, now = self.problem.load(widths), self.time(widths)
            heapq.heappush(heap, (price(group), group))
        return widths

    def _wider(self, widths: Widths, group: int) -> Widths | None:
        """Return the widths with a group one step up; None where it is whole."""
        own = self.steps[group]
        place = int(np.searchsorted(own, widths[group], side="right"))
        if place == own.size:
            return None
        trial = widths.copy()
        trial[group] = own[place]
        return trial

    def freely_widened(self, widths: Widths) -> Widths:
        """Return widths of which no next larger one keeps the budget without taking longer."""
        time = self.time(widths)
        for group, options in enumerate(self.problem.widths):
            for width in options[options > widths[group]].tolist():
                trial = widths.copy()
                trial[group] = width
                again = self.time(trial)
                if again > time or self.problem.load(trial) > 1.0:
                    break
                widths, time = trial, again
        return widths
