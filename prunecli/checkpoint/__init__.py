"""Networks at rest: load and save them, and recognise their architecture."""

from prunecli.checkpoint.architectures import build_dense
from prunecli.checkpoint.artefact import ArchitectureRef, Checkpoint, InputSpec, Loaded
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
