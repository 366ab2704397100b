"""Places to write to, before any work: pages, pictures, and room for what is written."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from prunecli.atomic import check_output, unwritable
from prunecli.errors import InputError
from prunecli.wording import byte_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PAGE_SUFFIXES = (".html", ".htm")

PICTURE_FORMATS = (".svg", ".png")
"""What every picture is written as: for pages, and for everything that shows pixels only."""

PICTURES = {
    "prune": ("layers", "removals", "course", "widths", "latency", "candidates"),
    "sweep": ("sweep",),
    "finetune": ("training", "run", "layers"),
    "export": ("benchmark", "run"),
}
"""What a verb may draw; which of them it draws depends on what it was asked."""

LEAST_ROOM = 64 * 1024
"""Bytes that have to be free wherever something is written."""


def check_page(path: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Raise `InputError` where a page cannot be put at `path`, before work: see `check_output`."""
    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise InputError(
            "a report is an HTML file",
            code="UNWRITABLE_OUTPUT",
            where=str(path),
            hint=f"end its name in {PAGE_SUFFIXES[0]}: --report {path.with_suffix('.html').name}",
        )
    check_output(path, inputs=inputs, overwrite=overwrite, what="report", flag="--report")


def check_folder(folder: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """Raise `InputError` where pictures of these names cannot be put in a folder, before work."""
    if folder.exists() and not folder.is_dir():
        raise InputError(
            "the place for pictures is not a folder",
            code="UNWRITABLE_OUTPUT",
            where=str(folder),
            hint="give a folder: --plots pictures/",
        )
    existing = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise unwritable(folder, f"no folder can be made in {existing}")
    there = [path for path in picture_paths(folder, names) if path.exists()]
    if there and not overwrite:
        raise InputError(
            "a picture exists already",
            code="OUTPUT_EXISTS",
            where=str(there[0]),
            hint="give another folder (--plots) or replace it (--overwrite)",
        )


def picture_paths(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the files of pictures of these names in a folder."""
    return [folder / f"{name}{suffix}" for name in names for suffix in PICTURE_FORMATS]


def check_written(
    path: Path,
    *,
    inputs: Iterable[Path | None],
    overwrite: bool,
    needed: int = LEAST_ROOM,
    flag: str = "--out",
) -> None:
    """Raise `InputError` for an output that cannot be written: see `check_output`, `check_room`."""
    given = [each for each in inputs if each is not None]
    check_output(path, inputs=given, overwrite=overwrite, flag=flag)
    check_room(path, needed)


def room_for(model: Path) -> int:
    """Return the bytes that a file as large as the weights of a model takes at least.

    A checkpoint may hold other things beside them, such as the state of an optimizer.
    """
    return max(LEAST_ROOM, model.stat().st_size // 8)


def check_room(path: Path, needed: int = LEAST_ROOM) -> None:
    """Raise `InputError` (`UNWRITABLE_OUTPUT`) where fewer bytes are free than an output needs."""
    free = shutil.disk_usage(path.resolve().parent).free
    if free < needed:
        raise unwritable(
            path, f"{byte_text(free)} are free there, and {byte_text(needed)} are needed"
        )
