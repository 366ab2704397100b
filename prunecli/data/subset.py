"""Write a part of a data set: a folder of links, or a list of files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.atomic import atomic_write, unwritable
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_subset(chosen: Sequence[tuple[str, str]], target: Path) -> None:
    """Write images (path, class) to `target`: a list where it ends in .txt, else a folder.

    A list has one line `path<TAB>class` per image, paths as seen from the list: a data set again. A
    folder gets one folder per class of hard links to the image files (copies, where the file system
    has no links), with the number of the image before its name, so that no two are called the same.
    Raises `InputError`: `NO_FILES` (images that are no files of their own cannot be linked),
    `BAD_NAME` (no UTF-8, in a list), `UNWRITABLE_OUTPUT`.
    """
    if target.suffix == ".txt":
        lines = [f"{_from(target.parent, path)}\t{name}\n" for path, name in chosen]
        try:
            text = "".join(lines).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                "a file has a name that is no UTF-8, which a list cannot hold",
                code="BAD_NAME",
                where=ascii(error.object[max(0, error.start - 20) : error.end + 20]),
                hint="rename it, or write a folder of links: --write-subset smaller/",
            ) from error
        with atomic_write(target) as place:
            place.write_bytes(text)
        return
    if not Path(chosen[0][0]).is_file():
        raise _no_files(target)
    _write_folder(chosen, target)


def _no_files(target: Path) -> InputError:
    return InputError(
        "the images of this data set are no files of their own, so they cannot be linked",
        code="NO_FILES",
        where=str(target),
        hint="write a list of their numbers: --write-subset subset.txt",
    )


def check_target(target: Path, *, data: Path, files: bool = True) -> None:
    """Raise `InputError` for a place that is taken, or inside the data set itself, before work.

    A folder there would be one of its classes from then on. `files` tells whether the images are
    files of their own, which a folder of links needs.
    """
    if target.suffix != ".txt" and not files:
        raise _no_files(target)
    if target.exists():
        raise InputError(
            "the output exists already",
            code="OUTPUT_EXISTS",
            where=str(target),
            hint="give another name, or remove it first",
        )
    if data.is_dir() and data.resolve() in target.resolve().parents and target.suffix != ".txt":
        raise InputError(
            "the subset would be written into the data set that it is a part of",
            code="OUTPUT_IS_INPUT",
            where=str(target),
            hint="write it beside the data set",
        )


def _from(folder: Path, path: str) -> str:
    """Return the path of a file as seen from a folder; what is no file stays as it is called."""
    return os.path.relpath(path, folder) if Path(path).is_file() else path


def _write_folder(chosen: Sequence[tuple[str, str]], target: Path) -> None:
    """Fill a folder beside the target first: a kill leaves no half of a data set behind."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        for number, (path, name) in enumerate(chosen):
            source = Path(path)
            place = unfinished / name / f"{number:06d}-{source.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                place.hardlink_to(source)
            except OSError:
                shutil.copy2(source, place)
        unfinished.replace(target)
    except OSError as error:
        raise unwritable(target, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
