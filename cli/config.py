"""Settings from variables and the nearest pyproject.toml, as defaults under flags.

A file that lies beside a model is no word of the user's: it sets numbers and names, and never what
lets code run or something be written (`Option.trusts`).
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prunecli.errors import InputError
from prunecli.options.declare import Option, flag_of

Commands = Mapping[str, Mapping[str, Option]]
"""The options of every verb by name."""

PREFIX = "PRUNECLI_"
OTHERS = frozenset({"TRACEBACK", "SHARED", "CACHE"})
"""Variables that are no options: how errors are shown, and two of the project's own tests."""

PLUGINS = "plugins"


def load(commands: Commands, *, folder: Path) -> dict[str, dict[str, Any]]:
    """Return `{command: {option: value}}` from `[tool.prunecli]` above `folder`.

    A key at the top holds for every command that has the option; `[tool.prunecli.prune]` holds for
    `prune` alone and wins. Raises `InputError`: `BAD_CONFIG` for a key that no command knows,
    `UNTRUSTED_SETTING` for one that grants trust.
    """
    path = find(folder)
    section = {} if path is None else _section(path)
    tables = {key: value for key, value in section.items() if isinstance(value, dict)}
    common = {key: value for key, value in section.items() if key not in tables}
    known = {name: option for options in commands.values() for name, option in options.items()}
    _check(common, known, path=path, table="tool.prunecli")
    _check(tables, dict.fromkeys(commands), path=path, table="tool.prunecli")
    settings: dict[str, dict[str, Any]] = {}
    for command, options in commands.items():
        own = tables.get(command, {})
        _check(own, options, path=path, table=f"tool.prunecli.{command}")
        merged = {_name(key): _typed(value) for key, value in {**common, **own}.items()}
        settings[command] = {key: value for key, value in merged.items() if key in options}
    return settings


def check_variables(commands: Commands, variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for every variable that looks like an option and is none.

    Raises `InputError` (`UNTRUSTED_SETTING`) for an option that is taken from a flag alone.
    """
    known = {
        variable_of(name): option
        for options in commands.values()
        for name, option in options.items()
    }
    for name in sorted(variables):
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX) in OTHERS:
            continue
        option = known.get(name)
        if option is None:
            near = difflib.get_close_matches(name, known, n=1)
            guess = f"; did you mean {near[0]}?" if near else ""
            yield f"the variable {name} is no option of any command{guess}"
        elif option.flag_only:
            raise _untrusted(name, name.removeprefix(PREFIX).lower(), option, where=None)


def variable_of(name: str) -> str:
    """Return the variable of an option.

    >>> variable_of("batch_size")
    'PRUNECLI_BATCH_SIZE'
    """
    return f"{PREFIX}{name.upper()}"


def find(folder: Path) -> Path | None:
    """Return the nearest pyproject.toml in `folder` or above it."""
    candidates = (parent / "pyproject.toml" for parent in (folder, *folder.parents))
    return next((path for path in candidates if path.is_file()), None)


def _section(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"the settings cannot be read: {error}",
            code="BAD_CONFIG",
            where=str(path),
            hint="repair the file, or work in another folder",
        ) from error
    section: Any = document.get("tool", {})
    section = section.get("prunecli", {}) if isinstance(section, dict) else {}
    return dict(section) if isinstance(section, dict) else {}


def _check(
    given: Mapping[str, Any],
    known: Mapping[str, Option | None],
    *,
    path: Path | None,
    table: str,
) -> None:
    """Raise `InputError` for a key that is not known, or that no file may set."""
    for key, value in given.items():
        name = _name(key)
        option = known.get(name)
        if option is not None and option.trusts is not None and option.trusts(value):
            raise _untrusted(f"[{table}] {key}", name, option, where=str(path))
        if name in known:
            continue
        raise InputError(
            f"[{table}] has an unknown key {key!r}",
            code="BAD_CONFIG",
            where=str(path),
            hint=_guess(name, known),
        )


def _guess(name: str, known: Mapping[str, Any]) -> str:
    if name == PLUGINS:
        return "plugins are installed packages (prunecli guide extending); no setting names one"
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0].replace('_', '-')!r}? " if near else ""
    return f"{guess}keys are the long options of the commands, without the dashes in front"


def _untrusted(key: str, name: str, option: Option, *, where: str | None) -> InputError:
    """Return the error of a setting that lets code run or something be written."""
    flag = option.flags.split()[0] if option.flags else flag_of(name)
    variable = "" if option.flag_only else f", or set the variable {variable_of(name)}"
    return InputError(
        f"{key} is not taken from there: it lets code run or files be written, which needs your "
        "own word",
        code="UNTRUSTED_SETTING",
        where=where,
        hint=f"take it out, and give the flag {flag}{variable}",
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
