"""The dense file that a model was pruned from, found again by what its history says of it.

A file is not trusted, and neither is what it says of others. Looked for is a plain file beside the
model, or at the place that was recorded relative to it; it is taken if it has the recorded size and
digest, and is only ever compared before that. No place elsewhere is followed: no absolute one, none
of another machine, no address.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from prunecli.architectures.reference import ArchitectureRef
from prunecli.artefacts.history import verb_of
from prunecli.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecli.checkpoint import Checkpoint

PLACE = "place"
"""The key of a step in the history for where its input lay, relative to the folder of the file."""

SIZE = "bytes"
"""The key of a step for how large its input was."""


@dataclass(frozen=True)
class Origin:
    """What a history says of the file that was pruned first: `place` and `size` where it does."""

    name: str
    sha256: str
    place: str | None
    size: int | None


def place_of(source: Path, folder: Path) -> dict[str, Any]:
    """Return where `source` lies, relative to `folder`, and its size, as a history keeps them."""
    found: dict[str, Any] = {}
    try:
        found[SIZE] = source.stat().st_size
        found[PLACE] = Path(os.path.relpath(source.resolve(), folder.resolve())).as_posix()
    except (OSError, ValueError):  # it is gone by now, or on another drive
        pass
    return found


def moved(history: list[Any], before: Path, after: Path) -> list[Any]:
    """Return a history with its places relative to the folder `after` instead of `before`."""
    return [
        {**step, **_moved(step[PLACE], before, after)}
        if isinstance(step, Mapping) and isinstance(step.get(PLACE), str)
        else step
        for step in history
    ]


def _moved(place: str, before: Path, after: Path) -> dict[str, str]:
    if not _is_relative(place):
        return {}
    try:
        return {PLACE: Path(os.path.relpath(before.resolve() / place, after.resolve())).as_posix()}
    except (OSError, ValueError):
        return {}


def origin_of(checkpoint: Checkpoint) -> Origin | None:
    """Return the file that the model was pruned from first; None where its history has no cut."""
    history = checkpoint.metadata.get("history")
    steps = history if isinstance(history, list) else []
    cut = next(
        (step for step in steps if isinstance(step, Mapping) and verb_of(step) == "prune"), {}
    )
    name, sha256, place, size = (cut.get(key) for key in ("input", "sha256", PLACE, SIZE))
    if not isinstance(name, str) or not isinstance(sha256, str):
        return None
    return Origin(
        name,
        sha256,
        place if isinstance(place, str) else None,
        size if isinstance(size, int) else None,
    )


def dense_architecture(checkpoint: Checkpoint) -> ArchitectureRef:
    """Return the architecture that a checkpoint was cut from; its own when it is not cut."""
    dense = checkpoint.metadata.get("dense")
    return checkpoint.architecture if dense is None else ArchitectureRef.from_json(dense)


def choices_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was said of which weights in the first file are meant, as `LoadOptions` has it.

    They choose among the tensors of that file and do nothing else, so that a file may say them.
    """
    source = checkpoint.metadata.get("source")
    said: Mapping[str, Any] = source if isinstance(source, Mapping) else {}
    ignore, renamed = said.get("ignore"), said.get("map")
    texts = {name: said.get(name) for name in ("weights", "prefix")}
    texts["head_activation"] = said.get("head-activation")
    found: dict[str, Any] = {name: text for name, text in texts.items() if isinstance(text, str)}
    if isinstance(ignore, list) and all(isinstance(pattern, str) for pattern in ignore):
        found["ignore"] = tuple(ignore)
    if isinstance(renamed, Mapping) and all(isinstance(name, str) for name in renamed.values()):
        found["renamed"] = dict(renamed)
    return found


def find_origin(origin: Origin, model: Path) -> Path | None:
    """Return the file itself, if it still is beside `model` or at its recorded place."""
    return next((path for path in _places(origin, model.parent) if _is(origin, path)), None)


def _places(origin: Origin, folder: Path) -> Iterator[Path]:
    if _is_relative(origin.name) and len(PurePosixPath(origin.name).parts) == 1:
        yield folder / origin.name
    if origin.place is not None and _is_relative(origin.place):
        yield folder.resolve() / origin.place


def _is_relative(place: str) -> bool:
    """Tell whether a place is one below or above a folder, and nothing else to any system."""
    strange = any(sign in place for sign in "\\:\0") or "//" in place
    return bool(place) and not strange and not PurePosixPath(place).is_absolute()


def _is(origin: Origin, path: Path) -> bool:
    """Tell whether a path is that very file; what is no plain file is not opened."""
    try:
        if not path.is_file() or origin.size not in (None, path.stat().st_size):
            return False
        return file_sha256(path) == origin.sha256
    except (OSError, ValueError):
        return False
