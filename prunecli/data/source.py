"""What a data set is: its classes and splits, found on disk by a table of formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from prunecli.errors import InputError
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sample:
    """One image file and the index of its class."""

    path: Path
    label: int


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


RawSplit: TypeAlias = tuple[Sample, ...] | Arrays


@dataclass(frozen=True, eq=False)
class DataSource:
    """A data set that was found, but not decoded.

    `splits` holds what is on disk under the names `train`, `val` and `test`, or one split `all`
    that is divided when it is loaded. `problems` are sentences for people.
    """

    path: Path
    format: str
    classes: tuple[str, ...]
    splits: Mapping[str, RawSplit]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFormat:
    """How one layout on disk is told from the others, and how it is read."""

    recognises: Callable[[Path], bool]
    read: Callable[[Path], DataSource]


FORMATS: Registry[DataFormat] = Registry("data format")


def open_source(path: Path | str) -> DataSource:
    """Find out what lies at `path` (a folder, a file, the word `digits`), decoding nothing.

    Raises `InputError`: `DATA_NOT_FOUND`, `DATA_NOT_RECOGNISED`, or the format's own complaint.
    """
    place = Path(path)
    if str(path) in BUILT_IN:
        return BUILT_IN[str(path)]()
    if not place.exists():
        raise InputError(
            "there is no such data folder",
            code="DATA_NOT_FOUND",
            where=str(path),
            hint=f"give a folder of images, or one of: {', '.join(BUILT_IN)}",
        )
    for entry in FORMATS:
        if entry.value.recognises(place):
            return entry.value.read(place)
    if not place.is_dir():
        raise InputError(
            "the data set is a file, and no table or archive of arrays",
            code="DATA_NOT_RECOGNISED",
            where=str(path),
            hint="unpack it first, then give the folder; or give a .csv of paths and labels, or a "
            ".npz of x and y",
        )
    raise InputError(
        "no data set was recognised in the folder",
        code="DATA_NOT_RECOGNISED",
        where=str(path),
        hint="one folder per class with images in it, perhaps below train/, val/ and test/; or: "
        + "; ".join(entry.summary for entry in FORMATS),
    )


BUILT_IN: dict[str, Callable[[], DataSource]] = {}
"""Data sets that come with a dependency, by the word that stands for them."""


def labels_of(split: RawSplit) -> NDArray[np.int64]:
    """Return the labels of a split, int64 [n]."""
    if isinstance(split, Arrays):
        return split.labels
    return np.fromiter((sample.label for sample in split), dtype=np.int64, count=len(split))


def names_of(split: RawSplit) -> tuple[str, ...]:
    """Return what to call each image of a split: its path, or its position."""
    if isinstance(split, Arrays):
        places = range(len(split)) if split.places is None else split.places.tolist()
        return tuple(f"#{place}" for place in places)
    return tuple(str(sample.path) for sample in split)


def select(split: RawSplit, indices: NDArray[np.int64]) -> RawSplit:
    """Return the images of a split at `indices`, in that order."""
    if isinstance(split, Arrays):
        places = indices if split.places is None else split.places[indices]
        return Arrays(split.images[indices], split.labels[indices], places)
    return tuple(split[index] for index in indices.tolist())
