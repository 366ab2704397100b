"""Signals: one number per channel, from four exchangeable parts."""

from prunecli.signals import presets, reconstruction
from prunecli.signals.components import (
    AGGREGATES,
    BASE_INPUTS,
    METRICS,
    REDUCTIONS,
    SCALINGS,
    Signal,
    distinct_grid,
    grid,
    parse_signal,
)
from prunecli.signals.score import PRESETS, fallbacks_of, needs_data, score, score_many

__all__ = [
    "AGGREGATES",
    "BASE_INPUTS",
    "METRICS",
    "PRESETS",
    "REDUCTIONS",
    "SCALINGS",
    "Signal",
    "distinct_grid",
    "fallbacks_of",
    "grid",
    "needs_data",
    "parse_signal",
    "presets",
    "reconstruction",
    "score",
    "score_many",
]
