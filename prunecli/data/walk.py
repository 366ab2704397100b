"""The files below a folder, each folder read once, whatever links lead where."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.files import current, is_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".webp"}
)

_ENDINGS = tuple(SUFFIXES)


@dataclass
class Findings:
    """What a walk comes across besides images.

    `entered` are the folders that were read, by device and inode; `loops` those that lead back to
    one of them; `unreadable` the folders that could not be read, with the reason; `others` counts
    files that are no images by their names. `outside` are links that lead out of `root`.
    """

    root: str

    entered: set[tuple[int, int]] = field(default_factory=set)
    loops: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    others: int = 0


def images_below(folder: Path, findings: Findings) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield (folder, names of images in it) in the order of the paths; hidden ones are left out.

    Links are followed where they stay below the root, but no folder is entered twice.
    """
    if leads_out(str(folder), findings.root):
        findings.outside.append(str(folder))
        return
    waiting: list[str | tuple[str, Sequence[str]]] = [str(folder)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, tuple):
            yield item
        else:
            waiting.extend(reversed(_inside(item, findings)))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, but for hidden ones.

    Raises `InputError` (`UNREADABLE_FOLDER`) where it may not be read.
    """
    return sorted(Path(entry.path) for entry in entries(folder) if is_folder(entry))


def images_in(folder: Path) -> int:
    """Return the number of images in a folder itself."""
    return sum(is_image(entry.name) and not is_folder(entry) for entry in entries(folder))


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, but for hidden things; raises `UNREADABLE_FOLDER`."""
    try:
        with os.scandir(folder) as items:
            return [item for item in items if not item.name.startswith(".")]
    except PermissionError:
        raise  # said where the data set is opened
    except OSError as error:
        raise InputError(
            f"the folder cannot be read: {error.strerror}",
            code="UNREADABLE_FOLDER",
            where=str(folder),
            hint="see who may read it: ls -ld; a mounted folder may have gone away",
        ) from error


def is_image(name: str) -> bool:
    """Say whether a file is called like an image."""
    return name.lower().endswith(_ENDINGS)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder, or a link to one; a link to itself is none."""
    return _safely(entry.is_dir)


def _inside(folder: str, findings: Findings) -> list[str | tuple[str, Sequence[str]]]:
    """Return the folders and the runs of images in a folder, sorted by their names."""
    try:
        state = os.stat(folder)  # noqa: PTH116 - a path object for each of many folders is dear
        if (state.st_dev, state.st_ino) in findings.entered:
            findings.loops.append(folder)
            return []
        findings.entered.add((state.st_dev, state.st_ino))
        with os.scandir(folder) as items:
            found = [(item.name, is_folder(item), item) for item in items if item.name[0] != "."]
    except FileNotFoundError:  # a class that this split does not have
        return []
    except OSError as error:
        findings.unreadable.append(f"{folder} ({error.strerror})")
        return []
    links = [item for _, _, item in found if item.is_symlink()]
    away = {item.name for item in links if leads_out(item.path, findings.root)}
    findings.outside += sorted(f"{folder}{os.sep}{name}" for name in away)
    found = [entry for entry in found if entry[0] not in away]
    folders = sorted(name for name, is_dir, _ in found if is_dir)
    files = sorted(name for name, is_dir, item in found if not is_dir and _is_picture(item))
    findings.others += len(found) - len(folders) - len(files)
    if not folders:
        return [(folder, files)] if files else []
    return _interleaved(folder, folders, files)


def _interleaved(
    folder: str, folders: Sequence[str], files: Sequence[str]
) -> list[str | tuple[str, Sequence[str]]]:
    """Return folders with the runs of files that come between them in the order of names."""
    found: list[str | tuple[str, Sequence[str]]] = []
    at = 0
    for name in folders:
        until = at
        while until < len(files) and files[until] < name:
            until += 1
        if until > at:
            found.append((folder, files[at:until]))
        found.append(f"{folder}{os.sep}{name}")
        at = until
    return [*found, (folder, files[at:])] if at < len(files) else found


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is called like an image, and is no pipe or device.

    A link that leads nowhere is an image that cannot be read.
    """
    return is_image(entry.name) and (_safely(entry.is_file) or entry.is_symlink())


def leads_out(path: str, root: str) -> bool:
    """Tell whether something that is there lies outside of a folder, and may not be read so."""
    if current().outside or not os.path.exists(path):  # noqa: PTH110 - there may be a million
        return False
    return not is_inside(path, root)


def _safely(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:
        return False
