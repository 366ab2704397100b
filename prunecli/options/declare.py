"""One declaration per option, in the field of a dataclass; command line and API are built on it."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_origin, get_type_hints

from prunecli.errors import InputError

if TYPE_CHECKING:
    from prunecli.options.names import Names

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Needs:
    """What an option needs beside it to have an effect.

    `tests` are alternatives by the name of another option: one of them has to hold for its value.
    """

    tests: Mapping[str, Test]
    hint: str

    def are_met(self, given: Mapping[str, Any]) -> bool:
        """Tell whether one of the alternatives holds; those of which nothing is known do."""
        known = [name for name in self.tests if name in given]
        return not known or any(self.tests[name](given[name]) for name in known)

    def refusal(self, flag: str, given: Mapping[str, Any]) -> InputError:
        """Return the error of an option that has no effect."""
        name = next(name for name in self.tests if name in given)
        value = given[name]
        beside = f"with {flag_of(name)}" if value else f"without {flag_of(name)}"
        beside += f" {value}" if isinstance(value, str | Path) else ""
        return InputError(
            f"{flag} has no effect {beside}",
            code="OPTION_WITHOUT_EFFECT",
            hint=self.hint.format(flag=flag),
        )


def needs(name: str, *values: str, test: Test | None = None, hint: str = "") -> Needs:
    """Return the need of another option: given at all, or with one of `values`, or as tested."""
    asked = " ".join((flag_of(name), *values[:1]))
    found = test or (values.__contains__ if values else bool)
    return Needs({name: found}, hint or f"add {asked}")


def excluded_by(name: str) -> Needs:
    """Return the need that another option is not given."""
    return Needs({name: lambda value: not value}, "leave {flag} out")


@dataclass(frozen=True)
class Option:
    """What an option says about itself, beside the default of its field.

    `flags` are what it is called on the command line where that is not the name of the field.
    `form` names how words are read where the type of the field does not say it. `choices` are
    all words that it takes, `names` those that are registered, `suggested` some of many;
    completion offers them. `basic` options are those of the short help. `tells_default` says that
    the help text itself names the default.

    `trusts` tells of which values an option lets code run or something be written; a file that
    lies beside a model may not say those. `flag_only` options are not taken from a variable either.
    """

    help: str
    metavar: str = ""
    panel: str = ""
    basic: bool = False
    flags: str = ""
    form: str = ""
    choices: tuple[str, ...] = ()
    names: Names | None = None
    suggested: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    tells_default: bool = False
    needs: tuple[Needs, ...] = ()
    trusts: Test | None = None
    flag_only: bool = False


def is_given(value: Any) -> bool:
    """Tell whether a word of an option says anything but no: a test for options that trust."""
    return str(value).lower() not in {"none", "false", "", "0", "no", "off"}


REQUIRED: Any = ...
"""The default of an option that has to be given."""


class _Follows(Enum):
    """A default that is no value of its own; as falsy as an option that nobody gave."""

    OTHERS = "follows from other options"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self.value}>"


FOLLOWS: Any = _Follows.OTHERS
"""The default of an option that follows from others.

The dataclass puts a value in its place as it is made, and names such options in an attribute
`followed`: where others change, they follow anew (see `assembled`).
"""


def option(default: T, help: str, **declared: Any) -> T:  # noqa: A002 - the word for it
    """Return the field of an option."""
    metadata = {"option": Option(help, **declared)}
    if default is REQUIRED:
        return cast("T", dataclasses.field(metadata=metadata))
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def group(kind: type[T], *needed: Needs) -> T:
    """Return the field of options that stand in a dataclass of their own and share needs."""
    return dataclasses.field(default_factory=kind, metadata={"needs": needed})


@dataclass(frozen=True)
class Declared:
    """An option where it is reached: `path` are the fields that lead to it."""

    name: str
    path: tuple[str, ...]
    kind: Any
    default: Any
    option: Option

    @property
    def flags(self) -> tuple[str, ...]:
        """What it is called on the command line, the usual name first."""
        said = tuple(flag.partition("/")[0] for flag in self.option.flags.split())
        return said or (flag_of(self.name),)


def flag_of(name: str) -> str:
    """Return what the command line calls the option `name`.

    >>> flag_of("batch_size")
    '--batch-size'
    """
    return f"--{name.replace('_', '-')}"


def declared(kind: Any) -> tuple[Declared, ...]:
    """Return the options of a dataclass and of the groups in it; other fields are no options.

    An option is named as its first flag is.
    """
    return _all(kind)


@cache
def _all(kind: Any) -> tuple[Declared, ...]:
    return tuple(_declared(kind, (), ()))


def _declared(kind: type, path: tuple[str, ...], needed: tuple[Needs, ...]) -> Iterator[Declared]:
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        here = (*path, field.name)
        if "needs" in field.metadata:
            yield from _declared(hints[field.name], here, (*needed, *field.metadata["needs"]))
        elif "option" in field.metadata:
            own: Option = field.metadata["option"]
            first = own.flags.partition(" ")[0].partition("/")[0]
            name = first.removeprefix("--").replace("-", "_") or field.name
            default = field.default if field.default_factory is MISSING else field.default_factory()
            own = dataclasses.replace(own, needs=(*needed, *own.needs))
            yield Declared(name, here, hints[field.name], default, own)


def assembled(kind: type[T], values: Mapping[str, Any], base: T | None = None) -> T:
    """Return a dataclass with `values` for its options, by name, and all else as in `base`.

    A group may be given as a whole, by the name of its field. Raises `TypeError` for a name that
    is no option, as a call with an unknown keyword does. An option that `base` took from others
    follows the new ones.
    """
    paths = {known.name: known for known in declared(kind)}
    whole = {field.name for field in dataclasses.fields(cast("Any", kind))}
    tree: dict[str, Any] = {}
    for name, value in values.items():
        if name in paths:
            known = paths[name]
            *groups, last = known.path
            place = tree
            for part in groups:
                place = place.setdefault(part, {})
            place[last] = _many(value) if get_origin(known.kind) is tuple else value
        elif name in whole:
            tree[name] = value
        else:
            near = difflib.get_close_matches(name, paths, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{name!r} is no option of {kind.__name__}{guess}")
    return _built(kind, tree, base)


def _built(kind: type[T], tree: Mapping[str, Any], base: T | None) -> T:
    hints = get_type_hints(kind)
    changes = {
        name: _built(hints[name], value, None if base is None else getattr(base, name))
        if isinstance(value, dict) and dataclasses.is_dataclass(hints[name])
        else value
        for name, value in tree.items()
    }
    if base is None:
        return kind(**changes)
    followed = dict.fromkeys(followed_by(base), FOLLOWS)
    return cast("T", dataclasses.replace(cast("Any", base), **{**followed, **changes}))


def _many(value: Any) -> tuple[Any, ...]:
    """Return one or several values as several; what follows from others stays that."""
    if value is FOLLOWS:
        return cast("tuple[Any, ...]", value)
    return (value,) if isinstance(value, str) or not hasattr(value, "__iter__") else tuple(value)


def followed_by(options: Any) -> tuple[str, ...]:
    """Return the names of the options that nobody gave and that follow from others."""
    return tuple(getattr(options, "followed", ()))


def values_of(options: Any) -> dict[str, Any]:
    """Return every option of a dataclass by name."""
    found = {}
    for known in declared(type(options)):
        value = options
        for part in known.path:
            value = getattr(value, part)
        found[known.name] = value
    return found


def idle(options: Iterable[Declared], given: Mapping[str, Any]) -> Iterator[tuple[Declared, Needs]]:
    """Yield the options that nothing follows, each with what it needs and lacks.

    `given` holds the values of all that is known, by name: the options, and what stands beside
    them, such as a budget or the data.
    """
    for known in options:
        unmet = (need for need in known.option.needs if not need.are_met(given))
        yield from ((known, need) for need in tuple(unmet)[:1])


def refuse_idle(
    options: Iterable[Declared], said: Collection[str], given: Mapping[str, Any]
) -> None:
    """Raise `InputError` for the first option among `said` that nothing follows (see `idle`)."""
    for known, need in idle(options, given):
        if known.name in said:
            raise need.refusal(known.flags[0], given)


def check_effect(options: Any, **given: Any) -> None:
    """Raise `InputError` for an option that differs from its default and that nothing follows.

    What is `given` counts before the values of the options themselves.
    """
    values = {**vars(options), **values_of(options), **given}
    refuse_idle(declared(type(options)), changes_of(options), values)


def changes_of(options: Any) -> frozenset[str]:
    """Return the names of the options that somebody gave a value other than the default."""
    values, followed = values_of(options), followed_by(options)
    return frozenset(
        each.name
        for each in declared(type(options))
        if each.name not in followed and values[each.name] != each.default
    )


def effective(options: T, said: Collection[str], **given: Any) -> T:
    """Return options with those at their defaults that nothing follows.

    Raises `InputError` for one of these among `said`. What is `given` counts before the values of
    the options themselves.
    """
    known, values = declared(type(options)), {**values_of(options), **given}
    refuse_idle(known, said, values)
    idle_ones = {each.name: each.default for each, _ in idle(known, values)}
    return assembled(type(options), idle_ones, options)


def chosen(kind: type[T], options: T | None, choices: Mapping[str, Any], **given: Any) -> T:
    """Return the options of a call: `options`, changed by the keywords `choices`, all of effect."""
    found = assembled(kind, choices, options)
    check_effect(found, **given)
    return found


def takes(kind: type) -> Callable[[F], F]:
    """Return a decorator that shows the options of `kind` in place of `**choices`."""

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        own = {name: value for name, value in signature.parameters.items() if name != "choices"}
        keywords = [
            inspect.Parameter(
                known.name, inspect.Parameter.KEYWORD_ONLY, default=known.default,
                annotation=known.kind,
            )
            for known in declared(kind)
            if known.name not in own
        ]  # fmt: skip
        function.__signature__ = signature.replace(parameters=[*own.values(), *keywords])  # type: ignore[attr-defined]
        listed = "\n".join(
            f"    {known.name}: {known.option.help}"
            for known in declared(kind)
            if known.name not in own
        )
        function.__doc__ = (
            f"{inspect.cleandoc(function.__doc__ or '')}\n\n"
            f"Keywords, which `options` ({kind.__name__}) holds as well:\n{listed}\n"
        )
        return function

    return shown
