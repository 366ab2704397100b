"""What files of other packages say of the model in them, besides its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.errors import LoadRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.architectures.reference import InputSpec


_LONGEST_NAME = 1000


@dataclass(frozen=True)
class Described:
    """The architecture of a file by its own account, and how its images and classes are called.

    `architecture` is the name of a registered one or of a package's, for `arguments`; None where
    the file does not tell. `notes` are to be told to the user.
    """

    architecture: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    input: InputSpec | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def class_names(named: Any, count: int) -> tuple[str, ...] | None:
    """Return the names of classes from a mapping of their numbers; None unless all have one.

    >>> class_names({0: "cat", "1": "dog"}, 2)
    ('cat', 'dog')
    """
    if isinstance(named, list | tuple):
        named = dict(enumerate(named))
    if not isinstance(named, dict) or len(named) != count:
        return None
    by_number = {str(key): name for key, name in named.items() if isinstance(key, int | str)}
    names = [by_number.get(str(at)) for at in range(count)]
    found = tuple(name for name in names if isinstance(name, str) and len(name) <= _LONGEST_NAME)
    return found if len(found) == count else None


def cannot_rebuild(path: Path, reason: str) -> LoadRefusedError:
    """Return the error (`UNKNOWN_LAYERS`) of a description that makes no model."""
    return LoadRefusedError(
        f"the model cannot be rebuilt from its description: {reason}",
        code="UNKNOWN_LAYERS",
        where=str(path),
        hint="name the code that makes it: --arch mypackage.nets:make_net",
    )
