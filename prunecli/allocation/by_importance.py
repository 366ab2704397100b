"""How many channels a group keeps by the importance of its layer: our reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation.layerwise import RECONSTRUCTION, Numbers
from prunecli.allocation.problem import ALLOCATIONS, Problem
from prunecli.allocation.uniform import largest_within
from prunecli.errors import InputError
from prunecli.preflight.pruning import BY_IMPORTANCE

if TYPE_CHECKING:
    from prunecli.cost.model import Widths


@ALLOCATIONS.register(
    BY_IMPORTANCE[0],
    summary="What is pruned of a layer is proportional to 1 / its importance (`--importance`).",
    source=RECONSTRUCTION,
)
def inverse_importance(problem: Problem) -> Widths:
    """Return the widths that keep `1 - min(1, c / importance)`, with the least `c` that fits.

    Channels of coupled layers are one unit. The cost of a layer follows its neighbours' widths too,
    so that `c` is found on the true cost, and not on the layers' own sizes.
    """
    importance = _importance(problem)
    most = importance.max()
    return largest_within(
        problem, lambda part: 1.0 - np.minimum(1.0, (1.0 - part) * most / importance)
    )


@ALLOCATIONS.register(
    BY_IMPORTANCE[1],
    summary="What stays of a layer is proportional to its importance (`--importance`).",
    source=RECONSTRUCTION,
)
def proportional_importance(problem: Problem) -> Widths:
    """Return the widths that keep `min(1, c * importance)`, with the largest `c` that fits."""
    importance = _importance(problem)
    most = 1.0 / importance.min()
    return largest_within(problem, lambda part: np.minimum(1.0, part * most * importance))


def _importance(problem: Problem) -> Numbers:
    """Return one positive importance per group that may be cut, or raise `InputError`."""
    found = problem.importance
    if found is None or len(found) != len(problem.groups):
        raise InputError(
            "this allocation needs one importance per channel group",
            code="NO_IMPORTANCE",
            hint="--importance names where they come from",
        )
    cut = np.asarray([options.size > 1 for options in problem.widths])
    bad = np.flatnonzero(cut & ~(np.isfinite(found) & (found > 0)))
    if bad.size:
        raise InputError(
            f"the importance of {problem.groups[bad[0]].name} is {found[bad[0]]}: it has to be "
            "above 0",
            code="BAD_IMPORTANCE",
        )
    # Those that stay whole anyway decide nothing, but must not stretch the range.
    return np.where(cut, found, found[cut].max() if cut.any() else 1.0)
