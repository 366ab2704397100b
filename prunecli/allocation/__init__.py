"""From saliencies and costs to widths: how many channels each group keeps under a budget."""

from prunecli.allocation import greedy, threshold, uniform
from prunecli.allocation.filling import CLOSE, allocate, check_feasible, fill, refill
from prunecli.allocation.layerwise import LAYER_RULES, layer_sparsities, whole_counts
from prunecli.allocation.problem import (
    ALLOCATIONS,
    Alignment,
    Allocation,
    Problem,
    Saliency,
    allowed_widths,
    ceilings_of,
    default_alignment,
    keep_mask,
)

__all__ = [
    "ALLOCATIONS",
    "CLOSE",
    "LAYER_RULES",
    "Alignment",
    "Allocation",
    "Problem",
    "Saliency",
    "allocate",
    "allowed_widths",
    "ceilings_of",
    "check_feasible",
    "default_alignment",
    "fill",
    "greedy",
    "keep_mask",
    "layer_sparsities",
    "refill",
    "threshold",
    "uniform",
    "whole_counts",
]
