"""The choices behind every verb, as frozen data without torch, each declared once.

A field holds its default, its help and what it needs to have an effect (`declare.option`). The
command line is made from these fields, and so are the keywords of the Python API.
"""

from prunecli.options.analyze import AnalyzeOptions, ComplexityOptions
from prunecli.options.compress import CompressOptions, WishOptions
from prunecli.options.export import ExportOptions
from prunecli.options.finetune import FinetuneOptions
from prunecli.options.info import InfoOptions
from prunecli.options.load import LoadOptions
from prunecli.options.methods import METHOD_DEFAULTS, RECIPE, TrainingOptions
from prunecli.options.prune import (
    BudgetOptions,
    LatencyOptions,
    PruneOptions,
)
from prunecli.options.timing import BenchOptions, CompareOptions

__all__ = [
    "METHOD_DEFAULTS",
    "RECIPE",
    "AnalyzeOptions",
    "BenchOptions",
    "BudgetOptions",
    "CompareOptions",
    "ComplexityOptions",
    "CompressOptions",
    "ExportOptions",
    "FinetuneOptions",
    "InfoOptions",
    "LatencyOptions",
    "LoadOptions",
    "PruneOptions",
    "TrainingOptions",
    "WishOptions",
]
