"""Take a pretrained vision network to a smaller, faster, proven one.

    import prunecli
    result = prunecli.prune(model, example_inputs, flops=0.5, signal="l1")
    result.model, result.plan, result.report, result.frozen
    prunecli.save(result, "slim.pt", input=input_spec)
    network = prunecli.load("slim.pt")

Everything heavy is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunecli.api import (
        analyze,
        bench,
        compare,
        compress,
        evaluate,
        export,
        finetune,
        info,
        load,
        prune,
        save,
        sparsify,
        sweep,
    )

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


def __getattr__(name: str) -> Any:
    if name in __all__:
        from prunecli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
