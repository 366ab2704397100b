"""Remove channels in the order of their saliency per cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.problem import ALLOCATIONS, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.cost.model import Widths


@ALLOCATIONS.register(
    "greedy",
    summary="Remove what costs most per saliency, costs refreshed after every step.",
    source="cost-aware selection as in Theis et al. 2018, arXiv 1801.05787, eq. for beta_i",
)
def greedy(problem: Problem) -> Widths:
    """Return the widths left after removing the channels with the least saliency per cost.

    A step takes one group to the next narrower of its allowed widths; the cost of a channel in
    every group is then counted anew, at the widths that are left.
    """
    removed, lost = _steps(problem)
    rows = np.arange(len(problem.groups))
    at = np.asarray([options.size - 1 for options in problem.widths])
    widths = problem.full.copy()
    while problem.load(widths) > 1.0:
        gradient = problem.load_gradient(widths)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = lost[rows, at] / (removed[rows, at] * gradient)
        ratio[(at == 0) | (gradient <= 0)] = np.inf
        group = int(np.argmin(ratio))
        if not np.isfinite(ratio[group]):
            return problem.smallest
        widths[group] -= int(removed[group, at[group]])
        at[group] -= 1
    return widths


def _steps(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the channels, and the saliency, between an allowed width and the one below it.

    Both are `[groups, most widths]`, 0 where there is no width below.
    """
    shape = (len(problem.groups), max((options.size for options in problem.widths), default=1))
    removed, lost = np.zeros(shape), np.zeros(shape)
    for group, options in enumerate(problem.widths):
        if options.size > 1:
            total = np.append(0.0, np.cumsum(problem.sorted_saliency(group)))
            removed[group, 1 : options.size] = np.diff(options)
            lost[group, 1 : options.size] = np.diff(total[options])
    return removed, lost
