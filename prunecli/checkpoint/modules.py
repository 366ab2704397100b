"""Read the weights out of pickled modules and other objects, as data, without their classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.checkpoint.headers import is_tensor
from prunecli.checkpoint.inert import Stub

if TYPE_CHECKING:
    from torch import Tensor

_DEPTH = 5
"""Levels of dicts and objects that are looked into, as far as weights are looked for."""

_MOST_PARTS = 500_000
_DEEPEST_MODULE = 100
_LONGEST_NAME = 1000
_FIRST_ARGUMENTS = 4
_WRAPS = frozenset({"module", "_orig_mod"})
_PARTS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True, eq=False)
class Opened:
    """A file's content with the pickled modules in it replaced by their state dicts.

    `modules` has the record of every such module by its place: the keys that lead to it, joined
    with dots, as `Unwrapped.place` names them.
    """

    value: Any
    modules: Mapping[str, Stub] = field(default_factory=dict)


def open_modules(value: Any) -> Opened:
    """Return the content with state dicts in place of modules, and attributes in place of objects.

    Raises `ValueError` for a module that has more parts than any network.
    """
    modules: dict[str, Stub] = {}
    seen: dict[tuple[int, int], Any] = {}

    def opened(item: Any, place: tuple[str, ...]) -> Any:
        key = (id(item), len(place))  # what a file refers to many times is opened once a level
        if key not in seen:
            seen[key] = _opened(item, place)
        return seen[key]

    def _opened(item: Any, place: tuple[str, ...]) -> Any:
        if isinstance(item, Stub):
            # `torch.compile` and others pickle as a call of their class with the module.
            made_of = (item, *item.arguments[:_FIRST_ARGUMENTS])
            item = next((each for each in made_of if is_module(each)), item)
            if is_module(item):
                modules.setdefault(".".join(place), item)
                return state_of_module(item)
            item = item.fields or item
        if not isinstance(item, Mapping) or len(place) == _DEPTH:
            return item
        return {name: opened(inner, (*place, _short(name))) for name, inner in item.items()}

    return Opened(opened(value, ()), modules)


def wrapped(module: Stub) -> Stub:
    """Return the module within `DataParallel`, `torch.compile` and the like, or itself."""
    inner = module
    for _ in range(_DEPTH):
        parts = inner.fields["_modules"]
        within = next((part for name, part in parts.items() if name in _WRAPS), None)
        if within is None or not (inner.name.startswith("torch.") and is_module(within)):
            break
        inner = within
    return inner


def is_module(item: Any) -> bool:
    """Tell whether a record is that of a `torch.nn.Module`, whatever its class."""
    return isinstance(item, Stub) and all(
        isinstance(item.fields.get(part), Mapping) for part in _PARTS
    )


def state_of_module(module: Stub) -> dict[str, Tensor]:
    """Return what `module.state_dict()` would hold, in its order, from the record of a module."""
    found: dict[str, Tensor] = {}
    for name, part in submodules(module).items():
        fields, prefix = part.fields, f"{name}." if name else ""
        left_out = fields.get("_non_persistent_buffers_set")
        left_out = left_out if isinstance(left_out, set) else set()
        kept = {key: each for key, each in fields["_buffers"].items() if key not in left_out}
        found |= {
            f"{prefix}{_short(key)}": each
            for key, each in (*fields["_parameters"].items(), *kept.items())
            if is_tensor(each)
        }
    return found


def submodules(module: Stub) -> dict[str, Stub]:
    """Return the records of all modules within one, and itself, by their names, in its order.

    Raises `ValueError` for one that has more parts than any network.
    """
    found: dict[str, Stub] = {}
    waiting: list[tuple[str, Stub, int]] = [("", module, 0)]
    count = 0
    while waiting:
        name, current, depth = waiting.pop()
        found[name] = current
        fields, prefix = current.fields, f"{name}." if name else ""
        count += 1 + sum(len(fields[part]) for part in _PARTS)
        if count > _MOST_PARTS or depth > _DEEPEST_MODULE or len(name) > _LONGEST_NAME:
            raise ValueError("a module in it has more parts than any network")
        parts = [
            (f"{prefix}{_short(key)}", part, depth + 1)
            for key, part in fields["_modules"].items()
            if is_module(part)
        ]
        waiting += reversed(parts)
    return found


def _short(name: Any) -> str:
    """Return a name as it is; what is none, or has more letters than any, as nothing."""
    return name if isinstance(name, str) and len(name) <= _LONGEST_NAME else ""
