"""Signals: one number per channel, from four exchangeable parts."""

from prunecli.signals import presets
from prunecli.signals.components import (
    AGGREGATES,
    BASE_INPUTS,
    METRICS,
    REDUCTIONS,
    SCALINGS,
    Signal,
    parse_signal,
)
from prunecli.signals.score import PRESETS, needs_data, score

__all__ = [
    "AGGREGATES",
    "BASE_INPUTS",
    "METRICS",
    "PRESETS",
    "REDUCTIONS",
    "SCALINGS",
    "Signal",
    "needs_data",
    "parse_signal",
    "presets",
    "score",
]
