"""The generated parts of the documentation; `python -m tests.docs.sections` writes them anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli_cli.guide import guides
from prunecli_cli.main import EXIT_CODES, root_command
from prunecli_cli.methods import FIRST, markdown_table, registries
from prunecli_cli.reports import Method
from tests.docs.markdown import BENCHMARKS, REPOSITORY, renewed, table
from tests.docs.measured import headlines, measured

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.registry import Registry

README = REPOSITORY / "README.md"
MEASURED = BENCHMARKS / "README.md"
GUIDES = REPOSITORY / "prunecli" / "guides"


def generated() -> dict[Path, dict[str, str]]:
    """Return the text of every generated section, by the file that holds it."""
    return {
        README: {"verbs": verbs(), "headlines": headlines(), "guides": guide_list()},
        MEASURED: measured(),
        GUIDES / "exit-codes.md": {"exit-codes": exit_codes()},
        GUIDES / "names.md": {"names": names()},
    }


def verbs() -> str:
    """Return all verbs with the first line of their help."""
    rows = [
        (f"`{name}`", (entry.help or "").partition("\n")[0])
        for name, entry in root_command().commands.items()
    ]
    return table(("verb", "what it does"), rows)


def exit_codes() -> str:
    """Return the exit codes and what they mean."""
    rows = [(str(code), meaning) for code, meaning in EXIT_CODES.items()]
    return table(("exit code", "meaning"), rows)


def guide_list() -> str:
    """Return all guides with what each is for."""
    rows = [
        (f"[{entry.name}](prunecli/guides/{entry.name}.md)", entry.value.topic, entry.summary)
        for entry in guides()
    ]
    return table(("guide", "kind", "what it is for"), rows)


def names() -> str:
    """Return all names that an option takes, one table for each registry."""
    known: dict[str, Registry[object]] = {registry.kind: registry for registry in registries()}
    tables = []
    for kind in FIRST:
        listed = tuple(
            Method(kind, entry.name, entry.summary, entry.source) for entry in known[kind]
        )
        tables.append(markdown_table(listed, of=kind))
    return "\n\n".join(tables)


if __name__ == "__main__":
    for path, sections in generated().items():
        path.write_text(renewed(path.read_text(encoding="utf-8"), sections), encoding="utf-8")
