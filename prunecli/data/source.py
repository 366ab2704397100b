"""What a data set is: its classes and splits, found on disk by a table of formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from prunecli.data.image_files import Files, Sample, joined_files
from prunecli.errors import (
    InputError,
    LoadRefusedError,
    PruneError,
    first_line,
    is_out_of_memory,
)
from prunecli.files import IMAGE_SHARE, no_memory, read_bytes
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images that are no files of their own: uint8 `images` [n, C, H, W], int64 `labels` [n].

    Or features [n, d], of which a data set can be made too, though nothing can be trained on them.
    `places` [n] are where they were in the whole split that they are chosen from, if they were, so
    that an image goes by one name however many others are chosen with it.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    places: NDArray[np.int64] | None = None

    @property
    def are_features(self) -> bool:
        """Whether these are no images but features."""
        return self.images.ndim == 2

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Packed:
    """Image files that lie inside larger files: `content(place)` gives the bytes of one.

    int64 `labels` [n] and `places` [n], which images go by however many others are chosen.
    """

    content: Callable[[int], bytes]
    labels: NDArray[np.int64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Image files with a mask each, in the same order; no image has a label of its own.

    `binary` masks hold 0 and 255 alone, and 255 is the class 1.
    """

    images: Files
    masks: Files
    binary: bool = False

    @property
    def labels(self) -> NDArray[np.int64]:
        """Zeros [n]: whoever spreads images over classes sees one."""
        return self.images.labels

    def name(self, position: int) -> str:
        """Return the path of one image."""
        return self.images.name(position)

    def chosen(self, indices: NDArray[np.int64]) -> Pairs:
        """Return the images and masks at `indices`, in that order."""
        return Pairs(self.images.chosen(indices), self.masks.chosen(indices), self.binary)

    def __len__(self) -> int:
        return len(self.images)


RawSplit: TypeAlias = Sequence[Sample] | Arrays | Packed | Pairs
"""Image files (`Files`, or any sequence of samples), arrays, or image files inside larger ones."""


@dataclass(frozen=True, eq=False)
class DataSource:
    """A data set that was found, but not decoded.

    `splits` holds what is on disk under the names `train`, `val` and `test`, or one split `all`
    that is divided when it is loaded. `problems` are sentences for people. `classes` are empty for
    masks whose classes nothing names.
    """

    path: Path
    format: str
    classes: tuple[str, ...]
    splits: Mapping[str, RawSplit]
    problems: tuple[str, ...] = ()

    @property
    def has_masks(self) -> bool:
        """Whether its labels are masks: ids of classes for every pixel."""
        return any(isinstance(raw, Pairs) for raw in self.splits.values())


@dataclass(frozen=True)
class DataFormat:
    """How one layout on disk is told from the others, and how it is read.

    `read_images` reads it where nobody asks for labels; None where that is no other thing.
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Path], DataSource]
    read_images: Callable[[Path], DataSource] | None = None


UNLABELLED = ("images",)
"""The classes of images that have no labels: one that holds all of them."""

FORMATS: Registry[DataFormat] = Registry("data format")


def open_source(path: Path | str) -> DataSource:
    """Find out what lies at `path` (a folder, a file, the word `digits`), decoding nothing.

    Raises `InputError`: `DATA_NOT_FOUND`, `DATA_NOT_RECOGNISED`, `UNREADABLE_FOLDER`, or the
    format's own complaint.
    """
    return _found(path, labels=True)


def open_images(path: Path | str) -> DataSource:
    """Find out what lies at `path` where nobody asks for labels: any data set, or plain images.

    Raises what `open_source` raises.
    """
    return _found(path, labels=False)


def open_either(path: Path | str) -> DataSource:
    """Find out what lies at `path`: with labels, or where images have none, for themselves."""
    try:
        return open_source(path)
    except InputError as error:
        if error.code != "NO_CLASSES":
            raise
        return open_images(path)


def _found(path: Path | str, *, labels: bool) -> DataSource:
    if str(path) in BUILT_IN:
        return BUILT_IN[str(path)]()
    try:
        return _open(Path(path), labels=labels)
    except PermissionError as error:
        raise InputError(
            f"there is no permission to read it: {error.strerror}",
            code="UNREADABLE_FOLDER",
            where=str(error.filename or path),
            hint="see who may read it: ls -ld",
        ) from error


def _open(place: Path, *, labels: bool) -> DataSource:
    if not place.exists():
        raise InputError(
            "there is no such data set, neither a folder nor a file",
            code="DATA_NOT_FOUND",
            where=str(place),
            hint="give a folder of images, a table (.csv), an archive (.npz), or one of: "
            + ", ".join(BUILT_IN),
        )
    for entry in FORMATS:
        if entry.value.recognises(place):
            return _read(entry.value, place, labels=labels)
    if not place.is_dir():
        raise InputError(
            "the data set is a file, and no table or archive of arrays",
            code="DATA_NOT_RECOGNISED",
            where=str(place),
            hint="unpack it first, then give the folder; or give a .csv of paths and labels, or a "
            ".npz of x and y",
        )
    raise InputError(
        "no data set was recognised in the folder",
        code="DATA_NOT_RECOGNISED",
        where=str(place),
        hint="one folder per class with images in it, perhaps below train/, val/ and test/; or: "
        + "; ".join(entry.summary for entry in FORMATS),
    )


def _read(form: DataFormat, place: Path, *, labels: bool) -> DataSource:
    """Read a data set; whatever a format did not foresee in its files is damage."""
    read = form.read if labels else form.read_images or form.read
    try:
        return read(place)
    except (OSError, PruneError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise no_memory(str(place)) from error
        raise LoadRefusedError(
            f"the data set cannot be read: {type(error).__name__}: {first_line(error)}",
            code="CORRUPT_DATA",
            where=str(place),
            hint="get the files again from where they were published, or make them anew",
        ) from error


BUILT_IN: dict[str, Callable[[], DataSource]] = {}
"""Data sets that come with a dependency, by the word that stands for them."""


def labels_of(split: RawSplit) -> NDArray[np.int64]:
    """Return the labels of a split, int64 [n]."""
    if isinstance(split, Arrays | Packed | Files | Pairs):
        return split.labels
    return np.fromiter((sample.label for sample in split), dtype=np.int64, count=len(split))


def name_of(split: RawSplit, position: int) -> str:
    """Return what to call one image of a split: its path, or its place."""
    if isinstance(split, Arrays | Packed):
        return f"#{position if split.places is None else split.places[position]}"
    if isinstance(split, Files | Pairs):
        return split.name(position)
    return str(split[position].path)


def names_of(split: RawSplit) -> tuple[str, ...]:
    """Return what to call each image of a split."""
    return tuple(name_of(split, position) for position in range(len(split)))


def identity(name: str) -> str:
    """Return what an image is known by wherever it is named: its absolute path, or its place.

    Records and data sets may be named from different folders; links stay what they are.
    """
    return name if name.startswith("#") else os.path.abspath(name)  # noqa: PTH100 - links stay


def content_of(split: Sequence[Sample] | Packed | Pairs, position: int) -> bytes:
    """Return the bytes of an image in its file format; raises what reading them may raise."""
    if isinstance(split, Packed):
        return split.content(int(split.places[position]))
    return read_bytes(Path(name_of(split, position)), share=IMAGE_SHARE)


def select(split: RawSplit, indices: NDArray[np.int64]) -> RawSplit:
    """Return the images of a split at `indices`, in that order."""
    if isinstance(split, Arrays):
        places = indices if split.places is None else split.places[indices]
        return Arrays(split.images[indices], split.labels[indices], places)
    if isinstance(split, Packed):
        return Packed(split.content, split.labels[indices], split.places[indices])
    if isinstance(split, Files | Pairs):
        return split.chosen(indices)
    return tuple(split[index] for index in indices.tolist())


def join(parts: Sequence[RawSplit]) -> RawSplit:
    """Return the images of several splits of one data set as one split."""
    if len(parts) == 1:
        return parts[0]
    arrays = [part for part in parts if isinstance(part, Arrays)]
    if arrays:
        return Arrays(
            np.concatenate([part.images for part in arrays]),
            np.concatenate([part.labels for part in arrays]),
        )
    packed = [part for part in parts if isinstance(part, Packed)]
    if packed:
        return _joined_packed(packed)
    pairs = [part for part in parts if isinstance(part, Pairs)]
    if pairs:
        images, masks = (joined_files([getattr(one, kind) for one in pairs])
                         for kind in ("images", "masks"))  # fmt: skip
        return Pairs(images, masks, pairs[0].binary)
    files = [part for part in parts if isinstance(part, Files)]
    if len(files) == len(parts):
        return joined_files(files)
    return tuple(
        sample for part in parts if not isinstance(part, Arrays | Packed | Pairs) for sample in part
    )


def _joined_packed(parts: Sequence[Packed]) -> Packed:
    starts = np.cumsum([0, *(len(part) for part in parts)])

    def content(place: int) -> bytes:
        at = int(np.searchsorted(starts, place, side="right")) - 1
        return content_of(parts[at], place - int(starts[at]))

    labels = np.concatenate([part.labels for part in parts])
    return Packed(content, labels, np.arange(len(labels)))
