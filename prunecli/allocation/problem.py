"""What an allocation rule looks at: saliencies, costs, ceilings, and the widths that may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunecli.cost.model import CostModel, Widths
from prunecli.registry import Registry

if TYPE_CHECKING:
    from prunecli.budget import Budget
    from prunecli.cost.alignment import Alignment
    from prunecli.graph.coupling.groups import ChannelGroup

Saliency = NDArray[np.float64]
"""One number per atom, larger is more important."""


@dataclass(frozen=True)
class Problem:
    """Everything an allocation rule may look at.

    `saliency` has one entry per atom; `widths[g]` lists the widths that group `g` may have, from
    its smallest to its full one; `ceilings` is the highest allowed cost of each limited kind.
    `shapes[g]` are the shapes of the weights that make a group's channels, and `importance` has
    one number per group; rules that need one of the two say so where it is missing. `why` says
    which groups and layers stay whole, and `fixed_reads` how many channels that stay a layer reads;
    both are for errors.
    """

    groups: tuple[ChannelGroup, ...]
    saliency: Saliency
    cost: CostModel
    ceilings: Mapping[str, float]
    widths: tuple[NDArray[np.int64], ...]
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = ()
    importance: NDArray[np.float64] | None = None
    why: Mapping[str, str] = field(default_factory=dict)
    fixed_reads: Mapping[str, int] = field(default_factory=dict)

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


def next_width(options: NDArray[np.int64], width: int) -> int | None:
    """Return the next wider of the allowed widths, None above the last."""
    at = int(np.searchsorted(options, width, side="right"))
    return int(options[at]) if at < options.size else None


def floor_width(options: NDArray[np.int64], width: float) -> int:
    """Return the widest allowed width that is not above `width`, or the narrowest there is."""
    at = int(np.searchsorted(options, width, side="right")) - 1
    return int(options[max(at, 0)])


def nearest_width(options: NDArray[np.int64], width: float) -> int:
    """Return the allowed width nearest to `width`, the narrower of two that are as near."""
    return int(options[int(np.argmin(np.abs(options - width)))])


def keep_mask(
    groups: Iterable[ChannelGroup], saliency: Saliency, widths: Widths
) -> NDArray[np.bool_]:
    """Return one boolean per atom: the most salient of each group stay; ties by lowest index."""
    keep = np.zeros(saliency.size, np.bool_)
    for group, width in zip(groups, widths.tolist(), strict=True):
        order = np.argsort(-saliency[group.atoms], kind="stable")
        keep[group.first + order[:width]] = True
    return keep
