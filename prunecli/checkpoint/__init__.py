"""Networks at rest: load and save them, and recognise their architecture."""

from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import build_dense
from prunecli.checkpoint.artefact import Checkpoint, Loaded
from prunecli.checkpoint.reading import load
from prunecli.checkpoint.writing import save

__all__ = [
    "ArchitectureRef",
    "Checkpoint",
    "InputSpec",
    "Loaded",
    "build_dense",
    "load",
    "save",
]
