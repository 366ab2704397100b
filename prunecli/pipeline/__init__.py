"""The verbs, on files: the only place that knows the order of things."""

from prunecli.pipeline.analyzing import analyze
from prunecli.pipeline.evaluating import evaluate
from prunecli.pipeline.exporting import export
from prunecli.pipeline.finetuning import finetune
from prunecli.pipeline.methods import prune
from prunecli.pipeline.sweeping import sweep

__all__ = ["analyze", "evaluate", "export", "finetune", "prune", "sweep"]
