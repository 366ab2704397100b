"""What a page is made of: plain data, all text of which is shown as it is, never as markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.pictures import Picture


@dataclass(frozen=True)
class Numbers:
    """A few figures in large type: (`3.45`, `CSG`, `higher is harder`) and so on.

    The first `leading` of them are in the largest type of the page.
    """

    rows: tuple[tuple[str, str, str], ...]
    leading: int = 0


@dataclass(frozen=True)
class Facts:
    """What something is, line by line: a name and its text."""

    rows: Mapping[str, str]


@dataclass(frozen=True)
class Bar:
    """A cell of a table with a bar as long as `share` (0 to 1) behind its text."""

    share: float
    text: str


Cell: TypeAlias = str | Bar


@dataclass(frozen=True)
class Grid:
    """A table; a column whose header starts with `>` holds numbers, set to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Drawing:
    """A picture, as wide as it was drawn or as the page is; its own words stand for it.

    `narrow` takes its place on a phone.
    """

    picture: Picture
    caption: str = ""
    narrow: Picture | None = None


@dataclass(frozen=True)
class Tile:
    """One small image: `source` is a data URI (`data_uri`), or empty where none can be shown.

    `alternative` says what is to be seen; `title` and `text` stand below.
    """

    source: str
    alternative: str
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Thumbnails:
    """Groups of small images that belong together, such as an image and what it looks like."""

    groups: tuple[tuple[Tile, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Folded:
    """Parts that open on a click, for what is long; they are closed on paper too."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Station:
    """One stage of a history: its name, figures with what they are, and a few words."""

    title: str
    figures: tuple[tuple[str, str], ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Stations:
    """Stages in their order, one beside the other where there is room."""

    stops: tuple[Station, ...]


Part: TypeAlias = Numbers | Facts | Grid | Drawing | Thumbnails | Folded | Stations


@dataclass(frozen=True)
class Section:
    """A heading, a few words (an empty line between paragraphs), and what they are about.

    The contents name a few sections only: those of the lowest `rank`.
    """

    title: str
    text: str = ""
    parts: tuple[Part, ...] = ()
    rank: int = 2
