"""The Python API: the verbs on modules instead of files. It never prints and never exits."""

from prunecli.api.compressing import compress
from prunecli.api.files import export, load, save
from prunecli.api.looking import bench, compare, info
from prunecli.api.measuring import analyze, evaluate, sweep
from prunecli.api.pruning import prune, sparsify
from prunecli.api.training import finetune

__all__ = [
    "analyze",
    "bench",
    "compare",
    "compress",
    "evaluate",
    "export",
    "finetune",
    "info",
    "load",
    "prune",
    "save",
    "sparsify",
    "sweep",
]
