"""The generated parts of README.md; run this file to write them anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli_cli.main import EXIT_CODES, root_command
from prunecli_cli.methods import FIRST, Method, markdown_table, registries

if TYPE_CHECKING:
    from prunecli.registry import Registry

README = Path(__file__).resolve().parents[1] / "README.md"


def section(text: str, name: str) -> str:
    """Return what stands between the markers of a section."""
    match = re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)
    assert match is not None, f"README.md has no section {name!r}"
    return match[1]


def command(text: str, name: str) -> str:
    """Return the one line of shell in a section."""
    (line,) = [line for line in section(text, name).splitlines() if not line.startswith("```")]
    return line


def generated() -> dict[str, str]:
    """Return the text of every generated section."""
    return {"verbs": _verbs(), "exit-codes": _exit_codes(), "methods": _methods()}


def write(text: str) -> str:
    """Return the README with all generated sections renewed."""
    for name, body in generated().items():
        old = f"<!-- begin: {name} -->\n{section(text, name)}<!-- end: {name} -->"
        text = text.replace(old, f"<!-- begin: {name} -->\n{body}\n<!-- end: {name} -->")
    return text


def _verbs() -> str:
    rows = [
        f"| `{name}` | {(command.help or '').partition(chr(10))[0]} |"
        for name, command in root_command().commands.items()
    ]
    return "\n".join(["| verb | what it does |", "|---|---|", *rows])


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["| exit code | meaning |", "|---|---|", *rows])


def _methods() -> str:
    known: dict[str, Registry[object]] = {registry.kind: registry for registry in registries()}
    tables = []
    for kind in FIRST:
        listed = tuple(
            Method(kind, entry.name, entry.summary, entry.source) for entry in known[kind]
        )
        tables.append(markdown_table(listed, of=kind))
    return "\n\n".join(tables)


if __name__ == "__main__":
    README.write_text(write(README.read_text(encoding="utf-8")), encoding="utf-8")
