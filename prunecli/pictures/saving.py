"""Write pictures: atomically, the same bytes for the same figures, with a text that says them."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING
from warnings import catch_warnings, filterwarnings

from prunecli.atomic import atomic_write, writing_to
from prunecli.errors import InputError
from prunecli.pictures.style import printable
from prunecli.preflight.outputs import PICTURE_FORMATS, picture_paths

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

DOTS = 110
"""Pixels per inch of the formats that have pixels."""


@dataclass(frozen=True)
class Picture:
    """A drawn figure; `description` says its content in words, for those who cannot see it."""

    figure: Figure
    title: str
    description: str


def save_pictures(folder: Path, pictures: Mapping[str, Picture]) -> tuple[Path, ...]:
    """Write every picture into `folder` in all of `PICTURE_FORMATS`, and return the files."""
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        for path in picture_paths(folder, [name]):
            save_figure(picture, path)
    return tuple(picture_paths(folder, pictures))


def save_figure(picture: Picture, path: Path) -> None:
    """Write one picture as the suffix of `path` says; a kill leaves the old file or the new one.

    The same figure gives the same bytes under the same version of matplotlib.
    """
    kind = path.suffix.lower()
    if kind not in PICTURE_FORMATS:
        raise InputError(
            f"the suffix {path.suffix!r} names no format for pictures",
            code="UNWRITABLE_OUTPUT",
            where=str(path),
            hint=f"end the name in one of {', '.join(PICTURE_FORMATS)}",
        )
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        _draw(picture, file, kind, letters="path")


def svg_text(picture: Picture) -> str:
    """Return a picture as SVG for a page: without a ground, its words as text in any type."""
    with BytesIO() as file:
        _draw(picture, file, ".svg", letters="none", transparent=True)
        return file.getvalue().decode()


def _draw(
    picture: Picture, file: IO[bytes], kind: str, *, letters: str, transparent: bool = False
) -> None:
    from matplotlib import rc_context

    metadata: dict[str, str | None] = {
        "Title": printable(picture.title),
        "Description": printable(picture.description),
        **({"Date": None, "Creator": "prunecli"} if kind == ".svg" else {"Software": "prunecli"}),
    }
    with rc_context({"svg.hashsalt": "prunecli", "svg.fonttype": letters}), catch_warnings():
        # Names in scripts that the font lacks: boxes in pixels, text like any other in a page.
        filterwarnings("ignore", message="Glyph .* missing from font")
        picture.figure.savefig(
            file, format=kind[1:], dpi=DOTS, metadata=metadata, transparent=transparent
        )
