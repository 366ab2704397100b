"""Pieces of generated Markdown: tables, sections between markers, and the measured rows."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Rows: TypeAlias = list[dict[str, str]]

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = REPOSITORY / "tests" / "benchmarks"


def section(text: str, name: str) -> str:
    """Return what stands between the markers of a section."""
    match = re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)
    assert match is not None, f"there is no section {name!r}"
    return match[1]


def command(text: str, name: str) -> str:
    """Return the one line of shell in a section."""
    (line,) = [line for line in section(text, name).splitlines() if not line.startswith("```")]
    return line


def renewed(text: str, sections: Mapping[str, str]) -> str:
    """Return the text with these sections replaced."""
    for name, body in sections.items():
        old = f"<!-- begin: {name} -->\n{section(text, name)}<!-- end: {name} -->"
        text = text.replace(old, f"<!-- begin: {name} -->\n{body}\n<!-- end: {name} -->")
    return text


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(text: str) -> str:
    """Return a share as percentage, nothing for nothing."""
    return f"{100 * float(text):.1f} %" if text else ""


def read(name: str) -> Rows:
    """Return the rows of a table in `tests/benchmarks/`; none where it has not been measured."""
    path = BENCHMARKS / name
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
