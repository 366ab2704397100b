"""From saliencies and costs to widths: how many channels each group keeps under a budget."""

from prunecli.allocation import by_importance, density, greedy, knapsack_rule, threshold
from prunecli.allocation.filling import CLOSE, allocate, check_feasible, refill
from prunecli.allocation.knapsack import decayed_targets, solve_knapsack
from prunecli.allocation.layerwise import (
    LAYER_RULES,
    RECONSTRUCTION,
    layer_sparsities,
)
from prunecli.allocation.linked import Linked, linked
from prunecli.allocation.problem import (
    ALLOCATIONS,
    Allocation,
    Problem,
    Saliency,
    allowed_widths,
    ceilings_of,
    keep_mask,
)
from prunecli.allocation.stairs import fast_widths
from prunecli.cost.alignment import Alignment, default_alignment
from prunecli.preflight.pruning import BY_IMPORTANCE

__all__ = [
    "ALLOCATIONS",
    "BY_IMPORTANCE",
    "CLOSE",
    "LAYER_RULES",
    "RECONSTRUCTION",
    "Alignment",
    "Allocation",
    "Linked",
    "Problem",
    "Saliency",
    "allocate",
    "allowed_widths",
    "by_importance",
    "ceilings_of",
    "check_feasible",
    "decayed_targets",
    "default_alignment",
    "density",
    "fast_widths",
    "greedy",
    "keep_mask",
    "knapsack_rule",
    "layer_sparsities",
    "linked",
    "refill",
    "solve_knapsack",
    "threshold",
]
