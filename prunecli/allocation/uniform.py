"""The same fraction of every layer, and its variant that spares the ends of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.problem import ALLOCATIONS, Problem, floor_width

if TYPE_CHECKING:
    from prunecli.cost import Widths


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
                floor_width(options, fraction ** (1 / group.axes) * options[-1])
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
