"""Image folders: one folder per class, perhaps below `train/`, `val/` and `test/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.data.formats.layout import class_names, find_splits
from prunecli.data.image_files import Files, Run, files_of
from prunecli.data.source import FORMATS, UNLABELLED, DataFormat, DataSource
from prunecli.data.walk import SUFFIXES, Findings, images_below, images_in, subfolders
from prunecli.errors import InputError
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


def recognises(folder: Path) -> bool:
    """Say whether `folder` has subfolders, or images without any."""
    return folder.is_dir() and bool(subfolders(folder) or images_in(folder))


def read(folder: Path) -> DataSource:
    """List the images of a tree of class folders, opening none.

    The classes are the names of the class folders over all splits, sorted. A class or a split
    without images, images outside of all classes and folders that cannot be read are problems, not
    errors. Raises
    `InputError`: `NO_CLASSES`, `NO_IMAGES`, `UNREADABLE_FOLDER`.
    """
    splits = find_splits(folder) or {"all": folder}
    loops: list[str] = []
    classes = class_names(folder, loops)
    if not classes:
        raise InputError(
            "the images are not sorted into class folders",
            code="NO_CLASSES",
            where=str(folder),
            hint="put the images of each class into a folder with the class's name, or give a "
            "table (.csv) of path and label; without labels a model follows another one: finetune "
            "--loss outputs, evaluate --against MODEL",
        )
    problems = [*_loops(loops), *_outside(folder, splits)]
    found = {name: _files(place, classes, problems, root=folder) for name, place in splits.items()}
    if not any(found.values()):
        why = "there is no image in any class folder"
        raise no_images(folder, why + "".join(f"; {text}" for text in problems))
    labelled = {name: files for name, files in found.items() if files}
    return DataSource(folder, "image-folder", classes, labelled, tuple(problems))


def read_images(folder: Path) -> DataSource:
    """List the images of a tree for themselves: whatever folders they lie in, none is a class.

    Where all of them lie in class folders, these still spread what is held out. Raises
    `InputError`: `NO_IMAGES`, `UNREADABLE_FOLDER`.
    """
    splits = find_splits(folder) or {"all": folder}
    if class_names(folder) and not any(images_in(place) for place in (folder, *splits.values())):
        return read(folder)
    problems: list[str] = []
    found = {}
    for name, place in splits.items():
        findings = Findings(str(folder))
        files = files_of(Run(below, names, 0) for below, names in images_below(place, findings))
        problems += _problems(place, [], findings, classes=1)
        if files:
            found[name] = files
    if not found:
        raise no_images(folder)
    return DataSource(folder, "images", UNLABELLED, found, tuple(problems))


def no_images(folder: Path, why: str = "there is no image in the folder") -> InputError:
    """Return the error of a folder without images."""
    return InputError(
        why,
        code="NO_IMAGES",
        where=str(folder),
        hint=f"images are files that end in {' '.join(sorted(SUFFIXES))}",
    )


def _files(place: Path, classes: Sequence[str], problems: list[str], *, root: Path) -> Files:
    """Return the images of one split, and add to `problems` what else was found."""
    findings = Findings(str(root))
    own = place.stat()
    full: set[int] = set()

    def runs() -> Iterator[Run]:
        for label, name in enumerate(classes):
            # A class may be a link to another one, but not to the folder that holds it.
            findings.entered = {(own.st_dev, own.st_ino)}
            for folder, names in images_below(place / name, findings):
                full.add(label)
                yield Run(folder, names, label)

    files = files_of(runs())
    empty = [name for label, name in enumerate(classes) if label not in full]
    problems.extend(_problems(place, empty, findings, classes=len(classes)))
    return files


def _problems(place: Path, empty: Sequence[str], findings: Findings, *, classes: int) -> list[str]:
    """Return sentences with numbers on what a split of so many classes holds besides images."""
    loops, closed, others = findings.loops, findings.unreadable, findings.others
    none, away = len(empty) == classes, findings.outside
    sentences = {
        f"{place} holds no image with a label and is left out": none,
        f"{counted(len(away), 'link')} {verb(len(away), 'leads', 'lead')} out of the folder of the "
        f"data and {verb(len(away), 'is', 'are')} left out (--allow-outside follows them): "
        f"{some(away)}": away,
        f"{counted(len(closed), 'folder')} cannot be read: {some(closed)}": closed,
        f"{counted(len(empty), 'class', 'classes')} {verb(len(empty), 'has', 'have')} no image in "
        f"{place}: {some(empty)}": bool(empty) and not none,
        f"{counted(others, 'file')} in {place} {verb(others, 'does', 'do')} not end like images "
        f"and {verb(others, 'is', 'are')} left out": others,
    }
    return [*_loops(loops), *(text for text, there in sentences.items() if there)]


def _loops(folders: Sequence[str]) -> list[str]:
    """Say which folders lead back to one that holds them, or that was read already."""
    count = len(folders)
    sentence = (
        f"{counted(count, 'folder')} {verb(count, 'leads', 'lead')} back to one that was read "
        f"already, left out: {some(folders)}"
    )
    return [sentence] if folders else []


def _outside(folder: Path, splits: Mapping[str, Path]) -> list[str]:
    """Return sentences on images that lie in no class folder, and so have no label."""
    counts = {place: images_in(place) for place in (folder, *splits.values())}
    return [
        f"{counted(count, 'image')} in {place} {verb(count, 'lies', 'lie')} in no class folder and "
        f"{verb(count, 'is', 'are')} left out"
        for place, count in counts.items()
        if count
    ]


FORMATS.add(
    "image-folder",
    DataFormat(recognises, read, read_images),
    summary="folders of images: train/, val/, test/ with a folder per class, or classes alone",
)
