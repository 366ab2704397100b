"""Remove channels in the order of their saliency per cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.problem import ALLOCATIONS, Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.cost import Widths

STEPS_PER_GROUP = 32
"""Greedy removal works through a group in this many steps; the rest is fine-tuned afterwards."""


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
