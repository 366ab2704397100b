"""Formats that a model can be exported to, by the ending of the file's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.registry import has_plugins

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ENDINGS = (".onnx",)
"""The endings of the formats here; a test holds them equal to `prunecli.exporting.formats`."""


def check_format(path: Path) -> None:
    """Raise `InputError` for an ending that names no format, unless a plugin may have it."""
    if path.suffix.lower() not in ENDINGS and not has_plugins():
        raise no_format(path, ENDINGS)


def no_format(path: Path, endings: Iterable[str]) -> InputError:
    """Return the error of a file whose ending names no format."""
    return InputError(
        f"cannot export: the suffix {path.suffix!r} names no format",
        code="UNWRITABLE_OUTPUT",
        where=str(path),
        hint=f"end the name in one of {', '.join(endings)}",
    )


def default_ending(precision: str) -> str:
    """Return what is put behind the stem of a model where nobody names the output.

    >>> default_ending(""), default_ending("int8")
    ('.onnx', '.int8.onnx')
    """
    return f".{precision}{ENDINGS[0]}" if precision else ENDINGS[0]
