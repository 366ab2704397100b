"""Image folders: one folder per class, perhaps below `train/`, `val/` and `test/`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.data.source import FORMATS, DataFormat, DataSource, Sample
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".webp"}
)

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What people call the folders of their splits, in lower case, and what we call them."""


def find_splits(folder: Path) -> dict[str, Path]:
    """Return the split folders below `folder` by our name for them; empty for a one-level tree."""
    found: dict[str, Path] = {}
    for child in _subfolders(folder):
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


def recognises(folder: Path) -> bool:
    """Say whether `folder` has subfolders, or images without any."""
    return folder.is_dir() and bool(
        _subfolders(folder) or any(_is_image(item) for item in folder.iterdir())
    )


def read(folder: Path) -> DataSource:
    """List the images of a tree of class folders.

    The classes are the names of the class folders over all splits, sorted. A class without images
    is a problem, not an error. Raises `InputError`: `NO_CLASSES`, `NO_IMAGES`.
    """
    splits = find_splits(folder) or {"all": folder}
    classes = tuple(
        sorted({child.name for place in splits.values() for child in _subfolders(place)})
    )
    if not classes:
        raise InputError(
            "the images are not sorted into class folders",
            code="NO_CLASSES",
            where=str(folder),
            hint="put the images of each class into a folder with the class's name",
        )
    found: dict[str, tuple[Sample, ...]] = {}
    problems: list[str] = []
    for name, place in splits.items():
        found[name] = _samples(place, classes, problems)
    if not any(found.values()):
        raise InputError(
            "there is no image in any class folder",
            code="NO_IMAGES",
            where=str(folder),
            hint=f"images are files that end in {' '.join(sorted(SUFFIXES))}",
        )
    return DataSource(folder, "image-folder", classes, found, tuple(problems))


def _samples(place: Path, classes: tuple[str, ...], problems: list[str]) -> tuple[Sample, ...]:
    samples: list[Sample] = []
    others = 0
    for label, name in enumerate(classes):
        files = sorted(_files(place / name, problems))
        images = [file for file in files if _is_image(file)]
        others += len(files) - len(images)
        if not images:
            problems.append(f"class {name!r} has no image in {place}")
        samples.extend(Sample(image, label) for image in images)
    if others:
        problems.append(f"{others} files in {place} do not end like images and are left out")
    return tuple(samples)


def _files(folder: Path, problems: list[str]) -> list[Path]:
    """Return all files below a folder; links are followed, but no folder is entered twice."""
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()

    def complain(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a class that this split does not have
            problems.append(f"{error.filename} cannot be read: {error.strerror}")

    for root, folders, names in os.walk(folder, followlinks=True, onerror=complain):
        state = Path(root).stat()
        if (state.st_dev, state.st_ino) in entered:
            problems.append(f"{root} leads back to a folder that was read already: left out")
            folders.clear()
            continue
        entered.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(Path(root, name) for name in names if not name.startswith("."))
    return found


def _subfolders(folder: Path) -> list[Path]:
    with os.scandir(folder) as items:
        return sorted(
            Path(item.path) for item in items if item.is_dir() and not item.name.startswith(".")
        )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


FORMATS.add(
    "image-folder",
    DataFormat(recognises, read),
    summary="folders of images: train/, val/, test/ with a folder per class, or classes alone",
)
