"""From saliencies and costs to widths: how many channels each group keeps under a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunecli.cost import CostModel, Widths
from prunecli.errors import GateError
from prunecli.registry import Registry

if TYPE_CHECKING:
    from prunecli.budget import Budget
    from prunecli.graph.coupling import ChannelGroup

Saliency = NDArray[np.float64]
"""One number per atom, larger is more important."""

STEPS_PER_GROUP = 32
"""Greedy removal works through a group in this many steps; the rest is fine-tuned afterwards."""


@dataclass(frozen=True)
class Problem:
    """Everything an allocation rule may look at.

    `saliency` has one entry per atom; `widths[g]` lists the widths that group `g` may have, from
    its smallest to its full one; `ceilings` is the highest allowed cost of each limited kind.
    """

    groups: tuple[ChannelGroup, ...]
    saliency: Saliency
    cost: CostModel
    ceilings: Mapping[str, float]
    widths: tuple[NDArray[np.int64], ...]

    def sorted_saliency(self, group: int) -> Saliency:
        """Return a group's saliencies, the most important first."""
        return -np.sort(-self.saliency[self.groups[group].atoms], kind="stable")

    def load(self, widths: Widths) -> float:
        """Return the cost as a fraction of the tightest ceiling; at most 1 is within budget."""
        costs = self.cost.cost(widths)
        return max(costs[kind] / ceiling for kind, ceiling in self.ceilings.items())

    def load_gradient(self, widths: Widths) -> NDArray[np.float64]:
        """Return how much one channel of each group adds to the loads that exceed their ceiling."""
        costs = self.cost.cost(widths)
        worst = max(costs[kind] / ceiling for kind, ceiling in self.ceilings.items())
        total = np.zeros(len(self.groups))
        for kind, ceiling in self.ceilings.items():
            if costs[kind] / ceiling >= min(1.0, worst):
                total += self.cost.gradient(kind, widths) / ceiling
        return total

    @property
    def full(self) -> Widths:
        """The widths of the uncut network."""
        return np.asarray([options[-1] for options in self.widths], np.int64)

    @property
    def smallest(self) -> Widths:
        """The narrowest widths that are allowed."""
        return np.asarray([options[0] for options in self.widths], np.int64)


Allocation = Callable[[Problem], Widths]
ALLOCATIONS: Registry[Allocation] = Registry("allocation")


Alignment = int | Callable[[int], int]
"""A multiple for every group, or a rule from a group's channels to its multiple."""


def default_alignment(channels: int) -> int:
    """Return the multiple that a layer of so many channels keeps by default.

    ONNX Runtime's blocked kernels on a CPU work in steps of 16 channels (AVX-512) and fall back
    to slow ones off multiples of 4: at half the FLOPs a MobileNetV2 runs 0.76 times as fast as the
    dense one with odd widths and 1.64 times with these (`tests/benchmarks/alignment.csv`).
    Narrow layers cannot afford steps of 16.
    """
    return 16 if channels >= 32 else 8 if channels >= 16 else 4


def allowed_widths(
    groups: Iterable[ChannelGroup],
    *,
    eligible: Callable[[ChannelGroup], bool],
    align: Alignment,
    min_width: int,
) -> tuple[NDArray[np.int64], ...]:
    """Return the widths in atoms that every group may have: aligned ones, and its full width.

    `align` and `min_width` count a layer's own channels; where an atom stands for several of them
    (the channels of one group of a grouped convolution), its multiples count.
    """
    result = []
    for group in groups:
        channels = group.width * group.multiplicity
        multiple = align if isinstance(align, int) else align(channels)
        step = multiple // math.gcd(multiple, group.multiplicity)
        options = np.arange(step, group.width, step)
        options = options[options * group.multiplicity >= min_width]
        options = options if eligible(group) else options[:0]
        result.append(np.append(options, group.width))
    return tuple(result)


def ceilings_of(budget: Budget, dense: Mapping[str, float]) -> dict[str, float]:
    """Return the highest allowed cost of each limited kind."""
    return {limit.kind: limit.ceiling(dense[limit.kind]) for limit in budget.limits}


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
            f"{kind} cannot go down to {ceiling / dense:.3f} of the network: "
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


def fill(problem: Problem, widths: Widths) -> Widths:
    """Give channels back in steps that `problem` allows where too much of a budget is left over."""
    return refill(problem, widths, enough=CLOSE)


def refill(problem: Problem, widths: Widths, *, enough: float = 1.0) -> Widths:
    """Give channels back, best saliency per cost first, while less than `enough` is used."""
    widths = widths.copy()
    ranked = [problem.sorted_saliency(group) for group in range(len(problem.groups))]
    blocked = np.zeros(len(problem.groups), np.bool_)
    while problem.load(widths) < enough:
        gradient = np.maximum(problem.load_gradient(widths), 1e-30)
        value = np.full(len(problem.groups), -np.inf)
        for group, options in enumerate(problem.widths):
            wider = _next(options, widths[group])
            if wider is not None and not blocked[group]:
                gain = ranked[group][widths[group] : wider].mean()
                value[group] = gain / gradient[group]
        if not np.isfinite(value).any():
            break
        group = int(np.argmax(value))
        trial = widths.copy()
        trial[group] = _next(problem.widths[group], widths[group]) or widths[group]
        if problem.load(trial) <= 1.0:
            widths = trial
        else:
            blocked[group] = True
    return widths


def _next(options: NDArray[np.int64], width: int) -> int | None:
    at = int(np.searchsorted(options, width, side="right"))
    return int(options[at]) if at < options.size else None


def _floor(options: NDArray[np.int64], width: float) -> int:
    at = int(np.searchsorted(options, width, side="right")) - 1
    return int(options[max(at, 0)])


@ALLOCATIONS.register(
    "uniform", summary="Every layer keeps the same fraction of its channels (default)."
)
def uniform(problem: Problem) -> Widths:
    """Return the largest common fraction that fits the budget, by bisection.

    Where two groups decide about the channels of one layer (heads, and the width inside them), each
    keeps the square root of the fraction.
    """

    def widths(fraction: float) -> Widths:
        return np.asarray(
            [
                _floor(options, fraction ** (1 / group.axes) * options[-1])
                for group, options in zip(problem.groups, problem.widths, strict=True)
            ],
            np.int64,
        )

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if problem.load(widths(middle)) <= 1.0:
            low = middle
        else:
            high = middle
    return widths(low)


@ALLOCATIONS.register("global", summary="One threshold on the saliency of all channels together.")
def global_threshold(problem: Problem) -> Widths:
    """Return the widths above the highest threshold that fits the budget, by bisection."""
    ranked = [problem.sorted_saliency(group) for group in range(len(problem.groups))]
    thresholds = np.unique(problem.saliency[np.isfinite(problem.saliency)])

    def widths(threshold: float) -> Widths:
        return np.asarray(
            [
                _floor(options, float(np.searchsorted(-own, -threshold, side="right")))
                for own, options in zip(ranked, problem.widths, strict=True)
            ],
            np.int64,
        )

    low, high = 0, thresholds.size - 1
    while low < high:
        middle = (low + high) // 2
        if problem.load(widths(thresholds[middle])) <= 1.0:
            high = middle
        else:
            low = middle + 1
    found = widths(thresholds[low])
    return found if problem.load(found) <= 1.0 else problem.smallest


@ALLOCATIONS.register(
    "greedy",
    summary="Remove what costs most per saliency, costs refreshed after every step.",
    source="cost-aware selection as in Theis et al. 2018, arXiv 1801.05787, eq. for beta_i",
)
def greedy(problem: Problem) -> Widths:
    """Return the widths left after removing the channels with the least saliency per cost."""
    widths = problem.full.copy()
    steps = [_coarse(options) for options in problem.widths]
    totals = [np.append(0.0, np.cumsum(problem.sorted_saliency(at))) for at in range(len(steps))]
    while problem.load(widths) > 1.0:
        gradient = problem.load_gradient(widths)
        ratio = np.full(widths.size, np.inf)
        for group, options in enumerate(steps):
            at = int(np.searchsorted(options, widths[group]))
            if at == 0 or gradient[group] <= 0:
                continue
            removed = widths[group] - options[at - 1]
            lost = totals[group][widths[group]] - totals[group][options[at - 1]]
            ratio[group] = lost / (removed * gradient[group])
        group = int(np.argmin(ratio))
        if not np.isfinite(ratio[group]):
            return problem.smallest
        options = steps[group]
        widths[group] = options[int(np.searchsorted(options, widths[group])) - 1]
    return widths


def _coarse(options: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most `STEPS_PER_GROUP` of the allowed widths, both ends among them."""
    if options.size <= STEPS_PER_GROUP:
        return options
    at = np.linspace(0, options.size - 1, STEPS_PER_GROUP).round().astype(np.int64)
    return options[np.unique(at)]


def keep_mask(
    groups: Iterable[ChannelGroup], saliency: Saliency, widths: Widths
) -> NDArray[np.bool_]:
    """Return one boolean per atom: the most salient of each group stay; ties by lowest index."""
    keep = np.zeros(saliency.size, np.bool_)
    for group, width in zip(groups, widths.tolist(), strict=True):
        order = np.argsort(-saliency[group.atoms], kind="stable")
        keep[group.first + order[:width]] = True
    return keep
