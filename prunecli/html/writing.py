"""Write a page: atomically, over nothing that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.atomic import atomic_write, check_output
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SUFFIXES = (".html", ".htm")


def check_page(path: Path, *, inputs: Iterable[Path], overwrite: bool) -> None:
    """Raise `InputError` where a page cannot be put at `path`, before work: see `check_output`."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            "a report is an HTML file",
            code="UNWRITABLE_OUTPUT",
            where=str(path),
            hint=f"end its name in {SUFFIXES[0]}: --report {path.with_suffix('.html').name}",
        )
    check_output(path, inputs=inputs, overwrite=overwrite, what="report", flag="--report")


def write_page(path: Path, text: str) -> None:
    """Write a page; a kill leaves the old file or the new one. See `check_page`."""
    with atomic_write(path) as place:
        place.write_text(text, encoding="utf-8", newline="\n")
