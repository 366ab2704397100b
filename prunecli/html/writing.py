"""Write a page: atomically, over nothing that is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.atomic import atomic_write

if TYPE_CHECKING:
    from pathlib import Path


def write_page(path: Path, text: str) -> None:
    """Write a page; a kill leaves the old file or the new one (`preflight.outputs`)."""
    with atomic_write(path) as place:
        place.write_text(text, encoding="utf-8", newline="\n")
