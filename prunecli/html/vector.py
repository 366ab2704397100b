"""Figures of matplotlib as SVG inside a page: its colours, its type, and no clash of names."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from prunecli.pictures import svg_text
from prunecli.pictures.style import COLOURS, GRID, INK, PAPER, QUIET, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecli.pictures import Picture

VARIABLES = {
    INK: "var(--ink)",
    PAPER: "var(--paper)",
    GRID: "var(--line)",
    QUIET: "var(--quiet)",
    **{colour.lower(): f"var(--colour-{at})" for at, colour in enumerate(COLOURS)},
}
"""The colours that change with the page, light or dark: the variables are set in `page.css`."""

NARROWEST = 0.7
"""The share of its own width to which a picture shrinks; below, it is scrolled in its frame."""

PIXELS = 96 / 72
"""Pixels of a page in a point of a picture."""

OF_XLINK = "{http://www.w3.org/1999/xlink}href"


def inline_svg(picture: Picture, prefix: str) -> str:
    """Return a picture as an `<svg>` element whose ids all start with `prefix`."""
    root = ET.fromstring(svg_text(picture))  # noqa: S314 - matplotlib wrote it just now
    used = set(_references(root))
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in {"metadata", "style", "title"}:
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.text, element.tail = _text(element.text), _text(element.tail)
        attributes = dict(element.attrib)
        element.attrib.clear()
        for name, value in attributes.items():
            if name != "id" or value in used:
                element.set(_local(name), _attribute(_local(name), value, prefix))
    width = PIXELS * float(root.get("viewBox", "0 0 1 1").split()[2])
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", printable(f"{picture.title}. {picture.description}"))
    root.set("style", f"width: {width:.0f}px; min-width: {NARROWEST * width:.0f}px")
    return ET.tostring(root, encoding="unicode")


def width_of(picture: Picture) -> float:
    """Return the width of a picture in inches."""
    return float(picture.figure.get_size_inches()[0])


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _text(text: str | None) -> str | None:
    return text if text is None or text.strip() else None


def _references(root: ET.Element) -> Iterator[str]:
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in {"href", OF_XLINK} and value.startswith("#"):
                yield value[1:]
            yield from re.findall(r"url\(#([^)]*)\)", value)


def _attribute(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href":
        return f"#{prefix}{value[1:]}" if value.startswith("#") else "".join(value.split())
    if name == "style":
        value = "; ".join(_declaration(part.strip()) for part in value.split(";"))
    elif name in {"d", "x", "y", "points"}:
        value = re.sub(r"-?\d+\.\d+", partial(_rounded), " ".join(value.split()))
    return value.replace("url(#", f"url(#{prefix}")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _declaration(text: str) -> str:
    """Return a declaration of a style with the page's colours and the page's type."""
    name, _, value = (part.strip() for part in text.partition(":"))
    if name == "font-family":
        return "font-family: var(--sans)"
    if name == "font":
        size = value.partition("'")[0].strip()
        return f"font: {size} var(--sans)"
    return f"{name}: {VARIABLES.get(value.lower(), value)}"
