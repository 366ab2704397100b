"""Networks at rest: load and save them, and recognise their architecture.

What needs torch is imported when it is first used: to look at a file takes no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunecli.architectures.reference import ArchitectureRef, InputSpec
    from prunecli.architectures.registry import build_dense
    from prunecli.checkpoint.artefact import Checkpoint, Loaded
    from prunecli.checkpoint.reading import load
    from prunecli.checkpoint.selection import Selection
    from prunecli.checkpoint.writing import save

__all__ = [
    "ArchitectureRef",
    "Checkpoint",
    "InputSpec",
    "Loaded",
    "Selection",
    "build_dense",
    "load",
    "save",
]

_PLACES = {
    "ArchitectureRef": "prunecli.architectures.reference",
    "Checkpoint": "prunecli.checkpoint.artefact",
    "InputSpec": "prunecli.architectures.reference",
    "Loaded": "prunecli.checkpoint.artefact",
    "Selection": "prunecli.checkpoint.selection",
    "build_dense": "prunecli.architectures.registry",
    "load": "prunecli.checkpoint.reading",
    "save": "prunecli.checkpoint.writing",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
