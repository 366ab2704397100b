"""The verbs, on files: the only place that knows the order of things."""

from prunecli.verbs.analyze import analyze
from prunecli.verbs.evaluate import evaluate
from prunecli.verbs.export import export
from prunecli.verbs.finetune import finetune
from prunecli.verbs.prune import prune
from prunecli.verbs.sweep import sweep

__all__ = ["analyze", "evaluate", "export", "finetune", "prune", "sweep"]
