"""Sections to one HTML page that needs nothing but itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from html import escape
from importlib.resources import files
from itertools import compress, count
from typing import TYPE_CHECKING

from prunecli.html.parts import (
    Bar,
    Cell,
    Drawing,
    Facts,
    Folded,
    Grid,
    Numbers,
    Part,
    Section,
    Stations,
    Thumbnails,
    Tile,
)
from prunecli.html.vector import inline_svg, width_of
from prunecli.pictures.style import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prunecli.pictures import Picture

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing from anywhere, and no script at all."""

HALF = 6.0
"""Inches up to which a picture leaves room for another one beside it."""

LONGEST = 44
"""Characters of the words below a small image."""

MOST_NAMED = 6
"""Sections that the contents name."""

SMALL = 3
"""Columns up to which a table can stand beside a picture."""


def page(title: str, sections: Sequence[Section], *, made_by: str) -> str:
    """Return a whole page: the same text for the same parts.

    All text is shown as it is, whatever it holds; `made_by` stands at the end of the page.
    """
    writer = _Writer()
    body = "\n".join(
        writer.section(section, f"section-{at}") for at, section in enumerate(sections, start=1)
    )
    contents = "".join(
        f'<li><a href="#section-{at}">{_text(sections[at - 1].title)}</a></li>'
        for at in _named(sections)
    )
    style = files("prunecli.html").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
</header>
<nav aria-label="Contents"><ul>{contents}</ul></nav>
<main>
{body}
</main>
<footer><p>{_text(made_by)}</p></footer>
</body>
</html>
"""


def _named(sections: Sequence[Section]) -> list[int]:
    """Return the numbers of the sections that the contents name, from 1: the few main ones."""
    by_rank = sorted(range(len(sections)), key=lambda at: sections[at].rank)
    return [at + 1 for at in sorted(by_rank[:MOST_NAMED])]


def _text(text: str) -> str:
    return escape(printable(text))


@dataclass
class _Writer:
    """Writes parts, and counts the pictures so that no two ids are the same."""

    pictures: Iterator[int] = field(default_factory=lambda: count(1))

    def section(self, section: Section, name: str) -> str:
        paragraphs = "\n".join(
            f"<p>{_text(each)}</p>" for each in section.text.split("\n\n") if each
        )
        return f"""<section id="{name}">
<h2>{_text(section.title)}</h2>
{paragraphs}
<div class="parts">
{self.parts(section.parts)}
</div>
</section>"""

    def parts(self, parts: tuple[Part, ...]) -> str:
        return "\n".join(self.part(part) for part in parts)

    @singledispatchmethod
    def part(self, part: Part) -> str:
        raise NotImplementedError(type(part).__name__)

    @part.register
    def _(self, part: Numbers) -> str:
        rows = "".join(
            f"<div{_class('leading' if at < part.leading else '')}>"
            f"<dt>{_text(label)}</dt><dd>{_text(value)}</dd>"
            f'<dd class="note">{_text(note)}</dd></div>'
            for at, (value, label, note) in enumerate(part.rows)
        )
        kind = "numbers led" if part.leading else "numbers"
        return f'<dl class="{kind}">{rows}</dl>'

    @part.register
    def _(self, part: Facts) -> str:
        if not part.rows:
            return ""
        rows = "".join(
            f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in part.rows.items()
        )
        return f'<dl class="facts">{rows}</dl>'

    @part.register
    def _(self, part: Grid) -> str:
        part = _without_empty_columns(part)
        classes = ["number" if name.startswith(">") else "" for name in part.header]
        head = "".join(
            f'<th scope="col"{_class(kind)}>{_text(name.removeprefix(">"))}</th>'
            for name, kind in zip(part.header, classes, strict=True)
        )
        rows = [
            "".join(_cell(cell, kind) for cell, kind in zip(row, classes, strict=True))
            for row in part.rows
        ]
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        size = _class("small" if len(part.header) <= SMALL else "")
        named = ", ".join(name.removeprefix(">") for name in part.header)
        region = f'tabindex="0" role="region" aria-label="{_text(f"Table: {named}")}"'
        return (
            f'<figure{size}><div class="frame" {region}><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>{_under(part.caption)}</figure>"
        )

    @part.register
    def _(self, part: Drawing) -> str:
        wide = "drawing" if width_of(part.picture) <= HALF else "drawing wide"
        frames = self.frame(part.picture, "frame" if part.narrow is None else "frame on-wide")
        if part.narrow is not None:
            frames += self.frame(part.narrow, "frame on-narrow")
        return f'<figure class="{wide}">{frames}{_under(part.caption)}</figure>'

    def frame(self, picture: Picture, kind: str) -> str:
        svg = inline_svg(picture, f"picture-{next(self.pictures)}-")
        return f'<div class="{kind}">{svg}</div>'

    @part.register
    def _(self, part: Thumbnails) -> str:
        groups = "\n".join(
            f'<li class="group">{"".join(map(_tile, group))}</li>' for group in part.groups
        )
        return f'<figure class="images">{_under(part.caption)}<ul>{groups}</ul></figure>'

    @part.register
    def _(self, part: Stations) -> str:
        stops = []
        for stop in part.stops:
            figures = "".join(
                f"<div><dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>"
                for value, label in stop.figures
            )
            listed = f"<dl>{figures}</dl>" if figures else ""
            text = f"<p>{_text(stop.text)}</p>" if stop.text else ""
            stops.append(f"<li><strong>{_text(stop.title)}</strong>{listed}{text}</li>")
        return f'<ol class="stations">{"".join(stops)}</ol>'

    @part.register
    def _(self, part: Folded) -> str:
        return (
            f"<details><summary>{_text(part.title)}</summary>"
            f'<div class="parts">{self.parts(part.parts)}</div></details>'
        )


def _without_empty_columns(grid: Grid) -> Grid:
    """Leave out columns in which no row says anything; a table without rows stays as it is."""
    said = [any(row[at] for row in grid.rows) for at in range(len(grid.header))]
    if not grid.rows or all(said):
        return grid
    rows = tuple(tuple(compress(row, said)) for row in grid.rows)
    return replace(grid, header=tuple(compress(grid.header, said)), rows=rows)


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _cell(cell: Cell, kind: str) -> str:
    if isinstance(cell, Bar):
        width = 100 * min(max(cell.share, 0.0), 1.0)
        bar = f'<span class="bar" style="width: {width:.1f}%"></span>'
        return f'<td class="barred">{bar}<span>{_text(cell.text)}</span></td>'
    return f"<td{_class(kind)}>{_text(cell)}</td>"


def _under(caption: str) -> str:
    return f"<figcaption>{_text(caption)}</figcaption>" if caption else ""


def _tile(tile: Tile) -> str:
    picture = (
        f'<img src="{escape(tile.source)}" alt="{_text(tile.alternative)}">'
        if tile.source
        else f'<span class="missing" role="img" aria-label="{_text(tile.alternative)}"></span>'
    )
    title = _line("title", tile.title)
    text = _line("path", tile.text)
    return f'<div class="tile">{picture}{title}{text}</div>'


def _line(kind: str, text: str) -> str:
    """Return words below an image, cut in the middle where they are long; whole on a hover."""
    if not text:
        return ""
    half = LONGEST // 2
    cut = text if len(text) <= LONGEST else f"{text[: half - 8]}...{text[-half - 5 :]}"
    return f'<span class="{kind}" title="{_text(text)}">{_text(cut).replace("/", "/<wbr>")}</span>'
