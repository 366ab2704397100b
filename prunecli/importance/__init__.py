"""How important each layer is: one number per channel group, for allocations that look at it.

The three importances are *our reconstruction*: "How Compact?" (Jung et al. 2019, arXiv 1901.02757)
has the idea to share a sparsity over layers by their importance; its formulas were not at hand.
"""

from prunecli.importance import energy, probe, sensitivity
from prunecli.importance.measure import (
    IMPORTANCES,
    Importance,
    Measured,
    agreements,
    check_importance,
    importance_of,
    measure_importance,
    uses_images,
)
from prunecli.preflight.pruning import chosen_importance

__all__ = [
    "IMPORTANCES",
    "Importance",
    "Measured",
    "agreements",
    "check_importance",
    "chosen_importance",
    "energy",
    "importance_of",
    "measure_importance",
    "probe",
    "sensitivity",
    "uses_images",
]
