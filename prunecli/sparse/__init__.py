"""Single weights: masks by any signal and allocation, n:m patterns, and what runs on them."""

from prunecli.sparse.allocation import WEIGHT_ALLOCATIONS
from prunecli.sparse.layers import WeightLayer, weight_layers
from prunecli.sparse.road import SparseResult, check_sparsify, sparsify_network

__all__ = [
    "WEIGHT_ALLOCATIONS",
    "SparseResult",
    "WeightLayer",
    "check_sparsify",
    "sparsify_network",
    "weight_layers",
]
