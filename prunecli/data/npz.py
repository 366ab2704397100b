"""A `.npz` file of images or features with labels."""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np

from prunecli.data.source import FORMATS, Arrays, DataFormat, DataSource
from prunecli.errors import InputError

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
    Raises `InputError`: `CORRUPT_DATA`.
    """
    arrays = _arrays(path)
    pairs = _pairs(arrays)
    if not pairs:
        raise _corrupt(path, f"it holds {', '.join(arrays) or 'nothing'}")
    named = {split: np.ravel(labels) for split, (_, labels) in pairs.items()}
    classes = np.unique(np.concatenate(list(named.values())))
    splits: dict[str, Arrays] = {}
    for split, (points, _) in pairs.items():
        if not points.ndim:
            raise _corrupt(path, "x is a single number")
        if len(points) != len(named[split]):
            raise _corrupt(path, f"{len(points)} rows with {len(named[split])} labels")
        splits[split] = _split(path, points, np.searchsorted(classes, named[split]))
    if len({split.are_features for split in splits.values()}) > 1:
        raise _corrupt(path, "some of its splits are images and some are features")
    names = tuple(str(name) for name in classes.tolist())
    return DataSource(path, "npz", names, splits)


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name.lower(): archive[name] for name in archive.files}
    except (
        OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError,
        NotImplementedError,
    ) as error:  # fmt: skip
        raise _corrupt(path, str(error)) from error


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
            raise _corrupt(path, f"its features are {points.dtype}, no numbers")
        return Arrays(points.astype(np.float64), labels)
    if points.ndim not in {3, 4} or points.dtype != np.uint8:
        raise _corrupt(path, f"{points.dtype} of shape {list(points.shape)}")
    images = points[..., None] if points.ndim == 3 else points
    if images.shape[-1] not in {1, 3, 4}:
        raise _corrupt(path, f"images of shape {list(points.shape)}: channels come last")
    return Arrays(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels)


def _corrupt(path: Path, reason: str) -> InputError:
    return InputError(
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
