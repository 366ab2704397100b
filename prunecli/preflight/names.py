"""Names that options take: a misspelt one is told with the nearest that is known."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.errors import InputError, did_you_mean, unknown_name
from prunecli.options.names import REGISTERED
from prunecli.registry import has_plugins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prunecli.options.declare import Declared


def check_names(options: Iterable[Declared], given: Mapping[str, Any]) -> None:
    """Raise `InputError` for the first option whose words are not known; `given` are all values.

    `UNKNOWN_...` for what is registered, `BAD_OPTION` for the few words of a choice. A name that a
    plugin may have registered is left to the registry.
    """
    for known in options:
        for word in _words(given.get(known.name)):
            _check_choice(known, word)
            _check_registered(known, word, given)


def check_architecture(name: str) -> None:
    """Raise `InputError` for an architecture that there is not, without importing its package."""
    from prunecli.architectures.registry import ARCHITECTURES
    from prunecli.architectures.timm_models import FROM_TIMM

    if ":" in name:
        _check_package(name)
    elif name.startswith(FROM_TIMM):
        _check_timm(name.removeprefix(FROM_TIMM))
    elif "/" not in name and name not in ARCHITECTURES:
        ARCHITECTURES.get(name)


def _words(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return (value,)
    several = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    return value if several else ()


def _check_choice(known: Declared, word: str) -> None:
    choices = known.option.choices
    if choices and word not in choices:
        raise InputError(
            f"{known.flags[0]} {word} is none of its choices",
            code="BAD_OPTION",
            hint=f"{did_you_mean(word, choices)}Choices: {', '.join(choices)}",
        )


def _check_registered(known: Declared, word: str, given: Mapping[str, Any]) -> None:
    names = known.option.names
    if names is None:
        return
    usual = names.kind_of(given)
    for kind, name in names.read(word):
        listed = REGISTERED[kind or usual]
        more = () if kind else names.words
        if name not in (*listed, *more) and not has_plugins():
            raise unknown_name(kind or usual, name, (*listed, *more))


def _check_timm(name: str) -> None:
    from prunecli.architectures.timm_names import is_known_to_timm, timm_names

    if not timm_names() or is_known_to_timm(name):  # without timm, that is what is told
        return
    raise InputError(
        f"timm has no model {name!r}",
        code="UNKNOWN_ARCHITECTURE",
        hint=f"{did_you_mean(name, timm_names())}timm.list_models() has all names",
    )


def _check_package(reference: str) -> None:
    """Look for the package of `package.module:factory`, which is not imported."""
    package = reference.partition(":")[0].partition(".")[0]
    here = (Path(package), Path(f"{package}.py"))
    if any(path.exists() for path in here) or (package.isidentifier() and find_spec(package)):
        return
    raise InputError(
        f"cannot find {reference}: there is no module {package!r}",
        code="FACTORY_NOT_FOUND",
        hint="write package.module:factory; modules of the working folder can be imported too",
    )
