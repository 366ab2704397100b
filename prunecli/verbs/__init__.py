"""The verbs, on files: the only place that knows the order of things.

A verb is imported when it is first used: what reads no weights does not wait for torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from prunecli.lifetime.importing import importing

if TYPE_CHECKING:
    from prunecli.verbs.analyze import analyze
    from prunecli.verbs.bench import bench
    from prunecli.verbs.compare import compare
    from prunecli.verbs.compress import compress
    from prunecli.verbs.evaluate import evaluate
    from prunecli.verbs.export import export
    from prunecli.verbs.finetune import finetune
    from prunecli.verbs.info import info
    from prunecli.verbs.prune import prune
    from prunecli.verbs.sweep import sweep

__all__ = [
    "analyze",
    "bench",
    "compare",
    "compress",
    "evaluate",
    "export",
    "finetune",
    "info",
    "prune",
    "sweep",
]


class _Verbs(ModuleType):
    """Gives the function of a verb where importing its file has put the file of the same name."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return getattr(found, name, found) if isinstance(found, ModuleType) else found


def __getattr__(name: str) -> Any:
    if name in __all__:
        with importing():
            return getattr(import_module(f"{__name__}.{name}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Verbs
