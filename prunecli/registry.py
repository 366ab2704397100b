"""One generic table for everything that can be added by name: signals, rules, costs, formats.

An installed package adds entries of its own by naming a module in its entry points:

    [project.entry-points."prunecli.plugins"]
    my_signals = "my_package.signals"

The module is imported before a registry is first looked at, and registers what it has as the
modules here do. What is installed beside prunecli is trusted as prunecli itself is; neither a
setting nor a checkpoint ever names a plugin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

from prunecli.errors import InputError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PLUGINS = "prunecli.plugins"
"""The group of entry points that name modules with further entries."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered thing with the one line and the citation that people see."""

    name: str
    value: T
    summary: str
    source: str


class Registry(Generic[T]):
    """Entries by name, in the order of registration.

    >>> colours: Registry[int] = Registry("colour")
    >>> _ = colours.add("red", 1, summary="Like a rose.")
    >>> colours.get("red")
    1
    >>> colours.get("rad")
    Traceback (most recent call last):
    prunecli.errors.InputError: unknown colour 'rad'
    hint: did you mean 'red'? Known: red
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def add(self, name: str, value: T, *, summary: str, source: str = "prunecli") -> T:
        """Register `value` under `name`; a name can be taken once."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = Entry(name, value, summary, source)
        return value

    def register(self, name: str, *, summary: str, source: str = "prunecli") -> Callable[[T], T]:
        """Return the decorator form of `add`."""
        return lambda value: self.add(name, value, summary=summary, source=source)

    def get(self, name: str) -> T:
        """Return the value under `name`; raise `InputError` with the nearest names otherwise."""
        load_plugins()
        entry = self._entries.get(name)
        if entry is None:
            raise unknown_name(self.kind, name, self._entries)
        return entry.value

    def __iter__(self) -> Iterator[Entry[T]]:
        load_plugins()
        return iter(tuple(self._entries.values()))

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return name in self._entries

    def names(self) -> tuple[str, ...]:
        """Return all names in the order of registration."""
        return tuple(entry.name for entry in self)


def has_plugins() -> bool:
    """Tell whether an installed package may have entries of its own."""
    from importlib.metadata import entry_points

    return bool(entry_points(group=PLUGINS))


@cache
def load_plugins() -> None:
    """Import every module of the entry-point group `prunecli.plugins`, once.

    Raises `InputError` (`BROKEN_PLUGIN`) for one that cannot be imported, which names its package.
    """
    from importlib.metadata import entry_points  # here, so that start-up does not wait for it

    for plugin in entry_points(group=PLUGINS):
        try:
            plugin.load()
        except Exception as error:
            package = plugin.dist.name if plugin.dist is not None else plugin.value
            raise InputError(
                f"the plugin {plugin.name!r} cannot be imported: {error!r}",
                code="BROKEN_PLUGIN",
                where=plugin.value,
                hint=f"update the package {package}, or uninstall it",
            ) from error
