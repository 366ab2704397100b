"""Settings from the nearest pyproject.toml, as defaults under flags and environment."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunecli.errors import InputError

Names = Mapping[str, frozenset[str]]


def load(commands: Names, *, folder: Path) -> dict[str, dict[str, Any]]:
    """Return `{command: {option: value}}` from `[tool.prunecli]` above `folder`.

    A key at the top holds for every command that has the option; `[tool.prunecli.prune]` holds for
    `prune` alone and wins. A key that no command knows is an error, not a silence.
    """
    path = find(folder)
    section = {} if path is None else _section(path)
    tables = {key: value for key, value in section.items() if isinstance(value, dict)}
    common = {key: value for key, value in section.items() if key not in tables}
    known = frozenset().union(*commands.values())
    _refuse_unknown(common, known, path=path, table="tool.prunecli")
    _refuse_unknown(tables, frozenset(commands), path=path, table="tool.prunecli")
    settings: dict[str, dict[str, Any]] = {}
    for command, options in commands.items():
        own = tables.get(command, {})
        _refuse_unknown(own, options, path=path, table=f"tool.prunecli.{command}")
        merged = {_name(key): _typed(value) for key, value in {**common, **own}.items()}
        settings[command] = {key: value for key, value in merged.items() if key in options}
    return settings


def find(folder: Path) -> Path | None:
    """Return the nearest pyproject.toml in `folder` or above it."""
    candidates = (parent / "pyproject.toml" for parent in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def _section(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"the settings cannot be read: {error}",
            code="BAD_CONFIG",
            where=str(path),
            hint="repair the file, or work in another folder",
        ) from error
    section = document.get("tool", {}).get("prunecli", {})
    return dict(section) if isinstance(section, dict) else {}


def _refuse_unknown(
    given: Mapping[str, Any], known: frozenset[str], *, path: Path | None, table: str
) -> None:
    for key in given:
        if _name(key) in known:
            continue
        near = difflib.get_close_matches(_name(key), known, n=1)
        guess = f"did you mean {near[0].replace('_', '-')!r}? " if near else ""
        raise InputError(
            f"[{table}] has an unknown key {key!r}",
            code="BAD_CONFIG",
            where=str(path),
            hint=f"{guess}keys are the long options of the commands, without the dashes in front",
        )


def _name(key: str) -> str:
    return key.replace("-", "_")


def _typed(value: Any) -> Any:
    """Return a value as if it had been typed; switches stay switches."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value)
