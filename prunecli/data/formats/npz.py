"""A `.npz` file of images or features with labels."""

from __future__ import annotations

import math
import zipfile
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy

from prunecli.data.source import FORMATS, Arrays, DataFormat, DataSource
from prunecli.errors import LoadRefusedError
from prunecli.files import check_memory, check_plain, reading
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

POINTS = ("x", "features", "data", "images", "arr_0")
LABELS = ("y", "labels", "target", "targets", "arr_1")
"""What people call the two arrays; `x_train`, `y_train` and the like hold splits."""

SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


def recognises(path: Path) -> bool:
    """Say whether `path` is a file that is called like an archive of arrays."""
    return path.is_file() and path.suffix.lower() == ".npz"


def read(path: Path) -> DataSource:
    """Read features [n, d], or uint8 images [n, H, W] or [n, H, W, C], with labels [n].

    Labels are of any type; the classes are what they are, sorted. Pickled arrays are refused.
    Raises `LoadRefusedError` (`CORRUPT_DATA`).
    """
    arrays = _arrays(path)
    pairs = _pairs(arrays)
    if not pairs:
        raise _corrupt(path, f"it holds {', '.join(arrays) or 'nothing'}")
    problems: list[str] = []
    labelled = {
        split: _labelled(path, split, points, labels, problems)
        for split, (points, labels) in pairs.items()
    }
    classes = np.unique(np.concatenate([labels for _, labels in labelled.values()]))
    splits = {
        split: _split(path, points, np.searchsorted(classes, labels))
        for split, (points, labels) in labelled.items()
    }
    if len({split.are_features for split in splits.values()}) > 1:
        raise _corrupt(path, "some of its splits are images and some are features")
    shapes = {split.images.shape[1:] for split in splits.values() if split.are_features}
    if len(shapes) > 1:
        raise _corrupt(
            path, f"its splits have {some(sorted(shape[0] for shape in shapes))} columns"
        )
    return DataSource(path, "npz", _names(classes), splits, tuple(problems))


def _labelled(
    path: Path,
    split: str,
    points: NDArray[np.generic],
    labels: NDArray[np.generic],
    problems: list[str],
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return the rows that have a label, with their labels [n]; a NaN is none."""
    if not points.ndim:
        raise _corrupt(path, "x is a single number")
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    if labels.ndim != 1:
        raise _corrupt(
            path,
            f"its labels have the shape {list(labels.shape)}; if they are one-hot, save "
            "y.argmax(axis=1)",
        )
    if len(points) != len(labels):
        raise _corrupt(path, f"{len(points)} rows with {counted(len(labels), 'label')}")
    if labels.dtype.kind not in "iubfUSM":
        raise _corrupt(path, f"its labels are {labels.dtype}, neither numbers nor names")
    missing = labels != labels  # noqa: PLR0124 - true of NaN and of no date alone
    lost = int(np.count_nonzero(missing))
    if lost:
        of = "" if split == "all" else f" of {split}"
        problems.append(
            f"{counted(lost, 'row')}{of} {verb(lost, 'has', 'have')} no label (NaN) and "
            f"{verb(lost, 'is', 'are')} left out"
        )
        points, labels = points[~missing], labels[~missing]
    return points, labels


def _names(classes: NDArray[np.generic]) -> tuple[str, ...]:
    """Return what classes are called: whole numbers without a fraction, bytes as text."""
    if classes.dtype.kind == "f" and bool((classes == np.floor(classes.astype(np.float64))).all()):
        return tuple(f"{name:.0f}" for name in classes.tolist())
    if classes.dtype.kind == "S":
        return tuple(name.decode("utf-8", "replace") for name in classes.tolist())
    return tuple(str(name) for name in classes.tolist())


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    with reading(path, _corrupt):
        check_plain(path)
        with zipfile.ZipFile(path) as members:
            _check_arrays(members, path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name.lower(): archive[name] for name in archive.files}


def _check_arrays(members: zipfile.ZipFile, path: Path) -> None:
    """Raise before anything is allocated for arrays that are larger than what is stored of them."""
    sizes = {member.filename: member.file_size for member in members.infolist()}
    check_memory(sum(sizes.values()), path, what="unpacking the archive")
    for name, size in sizes.items():
        with members.open(name) as stream:
            version = npy.read_magic(stream)
            shape, _, kind = _HEADERS[version](stream)
        asked = math.prod(shape) * kind.itemsize
        if min(shape, default=0) < 0 or asked > size:
            raise ValueError(f"{name} is {shape}, {asked:,} bytes, and holds {size:,}")


_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def _pairs(
    arrays: Mapping[str, NDArray[np.generic]],
) -> dict[str, tuple[NDArray[np.generic], NDArray[np.generic]]]:
    """Return (points, labels) by our name for the split; `all` where the names tell none."""
    found = {}
    for ending, split in (("", "all"), *((f"_{key}", name) for key, name in SPLITS.items())):
        points, labels = (
            next((arrays[name + ending] for name in names if name + ending in arrays), None)
            for names in (POINTS, LABELS)
        )
        if points is not None and labels is not None:
            found[split] = (points, labels)
    return found


def _split(path: Path, points: NDArray[np.generic], labels: NDArray[np.int64]) -> Arrays:
    if points.ndim == 2:
        if points.dtype.kind not in "fiub":
            raise _corrupt(path, f"its features are {points.dtype}, no real numbers")
        return Arrays(points.astype(np.float64), labels)
    if points.ndim not in {3, 4} or points.dtype != np.uint8:
        raise _corrupt(path, f"{points.dtype} of shape {list(points.shape)}")
    images = points[..., None] if points.ndim == 3 else points
    if images.shape[-1] not in {1, 3, 4}:
        raise _corrupt(path, f"images of shape {list(points.shape)}: channels come last")
    return Arrays(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels)


def _corrupt(path: Path, reason: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"no data set was found in the archive: {reason}",
        code="CORRUPT_DATA",
        where=str(path),
        hint="it takes x, features [n, d] or uint8 images [n, H, W, C], and y, labels [n]; or "
        "x_train, y_train, x_test, y_test",
    )


FORMATS.add(
    "npz",
    DataFormat(recognises, read),
    summary="a .npz of x (features, or uint8 images) and y (labels), perhaps x_train, ...",
)
