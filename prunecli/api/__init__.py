"""The Python API: the verbs on modules instead of files. It never prints and never exits.

What needs torch is imported when it is first used: to look at a file takes no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_PLACES = {
    "compress": "compressing",
    **dict.fromkeys(("export", "load", "save"), "files"),
    **dict.fromkeys(("bench", "compare", "info"), "looking"),
    **dict.fromkeys(("analyze", "evaluate", "sweep"), "measuring"),
    **dict.fromkeys(("prune", "sparsify"), "pruning"),
    "finetune": "training",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
