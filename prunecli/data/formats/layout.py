"""How class folders lie in a folder: at once, or below `train/`, `val/` and `test/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.data.formats.vocabulary import SPLIT_NAMES
from prunecli.data.walk import images_in, subfolders
from prunecli.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path


def find_splits(folder: Path) -> dict[str, Path]:
    """Return the split folders below `folder` by our name for them; empty for a one-level tree."""
    found: dict[str, Path] = {}
    for child in subfolders(folder):
        name = SPLIT_NAMES.get(child.name.lower())
        if name is None:
            continue
        if name in found:
            raise InputError(
                f"two folders hold the same split {name!r}: {found[name].name} and {child.name}",
                code="DATA_NOT_RECOGNISED",
                where=str(folder),
                hint="rename one of them",
            )
        found[name] = child
    return {name: found[name] for name in ("train", "val", "test") if name in found}


def class_names(folder: Path, loops: list[str] | None = None) -> tuple[str, ...]:
    """Return the names of class folders over all splits, sorted.

    `loops` gets the links that lead back to where they are, which are no classes.
    """
    places = (find_splits(folder) or {"all": folder}).values()
    skipped: list[str] = [] if loops is None else loops
    return tuple(sorted({name for place in places for name in _class_folders(place, skipped)}))


def class_folder_below(folder: Path) -> Path | None:
    """Return the folder further down that holds several folders, where one lies in another.

    Archives often unpack to such a folder: `flowers/flower_photos/daisy`.
    """
    if find_splits(folder):
        return None
    inside = subfolders(folder)
    while len(inside) == 1 and not images_in(inside[0]):
        folder = inside[0]
        inside = subfolders(folder)
        if len(inside) > 1:
            return folder
    return None


def _class_folders(place: Path, loops: list[str]) -> list[str]:
    """Return the names of the class folders of a split; a link back to the split is none."""
    names = []
    for child in subfolders(place):
        if child.is_symlink() and child.resolve() in (place.resolve(), *place.resolve().parents):
            loops.append(str(child))
        else:
            names.append(child.name)
    return names
