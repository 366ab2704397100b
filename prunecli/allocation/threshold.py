"""One threshold on the saliency of all channels together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.problem import ALLOCATIONS, Problem, floor_width

if TYPE_CHECKING:
    from prunecli.cost.model import Widths


@ALLOCATIONS.register("global", summary="One threshold on the saliency of all channels together.")
def global_threshold(problem: Problem) -> Widths:
    """Return the widths above the highest threshold that fits the budget, by bisection."""
    ranked = [problem.sorted_saliency(group) for group in range(len(problem.groups))]
    thresholds = np.unique(problem.saliency[np.isfinite(problem.saliency)])

    def widths(threshold: float) -> Widths:
        return np.asarray(
            [
                floor_width(options, float(np.searchsorted(-own, -threshold, side="right")))
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
