"""Write a page: atomically, over nothing that is wanted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prunecli.atomic import atomic_write, unwritable
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SUFFIXES = (".html", ".htm")


def check_page(path: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Raise `InputError` where a page cannot be put at `path`, before work.

    `UNWRITABLE_OUTPUT`, `OUTPUT_EXISTS`, and `OUTPUT_IS_INPUT` for one of the inputs or a place
    inside a folder of them.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            "a report is an HTML file",
            code="UNWRITABLE_OUTPUT",
            where=str(path),
            hint=f"end its name in {SUFFIXES[0]}: --report {path.with_suffix('.html').name}",
        )
    target = path.resolve()
    for given in (each.resolve() for each in inputs if each.exists()):
        if given == target or (given.is_dir() and given in target.parents):
            raise InputError(
                "the report would be written over or into what it is about",
                code="OUTPUT_IS_INPUT",
                where=str(path),
                hint="write it beside that: --report ../report.html",
            )
    if path.exists() and not path.is_file():
        raise unwritable(path, "there is something else than a file in that place")
    if path.exists() and not overwrite:
        raise InputError(
            "the report exists already",
            code="OUTPUT_EXISTS",
            where=str(path),
            hint="give another name (--report) or replace it (--overwrite)",
        )
    if not target.parent.is_dir():
        raise unwritable(
            path,
            f"the folder {path.parent} does not exist",
            hint=f"make it first: mkdir -p {path.parent}",
        )
    if not os.access(target.parent, os.W_OK):
        raise unwritable(path, f"the folder {path.parent} cannot be written to")


def write_page(path: Path, text: str) -> None:
    """Write a page; a kill leaves the old file or the new one. See `check_page`."""
    with atomic_write(path) as place:
        place.write_text(text, encoding="utf-8", newline="\n")
