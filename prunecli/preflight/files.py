"""Files to read: one that is not there is told with the nearest name beside it."""

from __future__ import annotations

from pathlib import Path

from prunecli.errors import InputError, did_you_mean
from prunecli.files import empty_file, missing_file, nearest_path

BUILT_IN_DATA = ("digits",)
"""Words that stand for a data set; a test holds them equal to `prunecli.data.source.BUILT_IN`."""


def check_file(path: Path) -> None:
    """Raise `InputError` (`FILE_NOT_FOUND`) for a path where nothing is, and for an empty file."""
    if not path.exists():
        raise missing_file(path)
    if path.is_file() and path.stat().st_size == 0:
        raise empty_file(path)


def check_inputs(*files: Path | None, data: str | None = None) -> None:
    """Raise what `check_file` and `check_data` raise for files and data that are named."""
    for path in files:
        if path is not None:
            check_file(path)
    if data is not None:
        check_data(data)


def check_data(data: str) -> None:
    """Raise `InputError` (`DATA_NOT_FOUND`) for a data set that is neither a path nor a word."""
    if data in BUILT_IN_DATA or Path(data).exists():
        return
    near = did_you_mean(data, BUILT_IN_DATA) or nearest_path(Path(data))
    raise InputError(
        "there is no such data set, neither a folder nor a file",
        code="DATA_NOT_FOUND",
        where=data,
        hint=f"{near}give a folder of images, a table (.csv), an archive (.npz), or one of: "
        + ", ".join(BUILT_IN_DATA),
    )
