"""Which images a network learns early, late or never, from its hits and misses over epochs.

Lee, Kim, Jung, Choe, "Comparing Sample-wise Learnability Across Deep Neural Network Models", AAAI
2019, arXiv 1901.02347.
"""

from prunecli.learnability.compare import Agreement, agreement, hardest, likely_label_errors
from prunecli.learnability.continuing import check_continuation, continued
from prunecli.learnability.matching import Known, known_images
from prunecli.learnability.record import (
    SCORED,
    Record,
    forgetting_events,
    learnability,
    read_record,
    write_record,
)
from prunecli.learnability.summary import compare_records, unlike_runs
from prunecli.learnability.weighting import curriculum_rows, importance_weights, pace

__all__ = [
    "SCORED",
    "Agreement",
    "Known",
    "Record",
    "agreement",
    "check_continuation",
    "compare_records",
    "continued",
    "curriculum_rows",
    "forgetting_events",
    "hardest",
    "importance_weights",
    "known_images",
    "learnability",
    "likely_label_errors",
    "pace",
    "read_record",
    "unlike_runs",
    "write_record",
]
