"""MNIST and its relatives, in the IDX files in which they are published."""

from __future__ import annotations

import gzip
import math
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from prunecli.data.source import FORMATS, Arrays, DataFormat, DataSource
from prunecli.errors import LoadRefusedError
from prunecli.files import check_plain, read_bytes, reading, unpacked

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PAIRS = {"train": "train", "t10k": "test", "test": "test"}
"""How the files of a split begin, and our name for it."""

PLACES = (".", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")
"""Where the files lie in a folder, as published or as torchvision unpacks them."""

TRAIN_SHARE = 0.8
"""Part of the only pair of files that is trained on: its first images, the last ones test."""

UBYTE = 8

DIMENSIONS = 3
"""Dimensions of an array at most: images [n, H, W]."""


def recognises(folder: Path) -> bool:
    """Say whether `folder` holds a pair of IDX files."""
    return bool(_pairs(folder))


def read(folder: Path) -> DataSource:
    """Read the pairs of image and label files, gzipped or not.

    Where there is one pair alone, its first 80 % are `train` and the rest `test`. The classes are
    the numbers from the lowest label to the highest. Raises `LoadRefusedError` (`CORRUPT_DATA`) for
    files that are cut short or are no IDX files.
    """
    splits: dict[str, Arrays] = {}
    for name, (image_file, label_file) in _pairs(folder).items():
        images, labels = read_idx(image_file), read_idx(label_file)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise corrupt(
                label_file, f"{list(images.shape)} images with {list(labels.shape)} labels"
            )
        splits[name] = Arrays(images[:, None], labels.astype(np.int64))
    problems: tuple[str, ...] = ()
    if len(splits) == 1:
        name, only = next(iter(splits.items()))
        cut = round(len(only) * TRAIN_SHARE)
        splits = {
            "train": Arrays(only.images[:cut], only.labels[:cut]),
            "test": Arrays(only.images[cut:], only.labels[cut:]),
        }
        rest = len(only) - cut
        note = f"only {name} files: the first {cut} images are train, the last {rest} test"
        problems = (note,)
    lowest = min(int(split.labels.min(initial=255)) for split in splits.values())
    highest = max(int(split.labels.max(initial=0)) for split in splits.values())
    if 0 < lowest <= highest:  # such as the letters of EMNIST
        splits = {
            name: Arrays(split.images, split.labels - lowest) for name, split in splits.items()
        }
    classes = tuple(str(label) for label in range(min(lowest, highest), highest + 1))
    return DataSource(folder, "mnist-idx", classes, splits, problems)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes.

    The header is two zero bytes, the type, the number of dimensions, then each as a big-endian
    32-bit integer. Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database".
    """
    with reading(path, corrupt):
        data = _content(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UBYTE:
        raise corrupt(path, "it is not an IDX file of unsigned bytes")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise corrupt(path, f"its header is cut short after {len(data)} bytes")
    shape = tuple(np.frombuffer(data[4:start], dtype=">u4").astype(int).tolist())
    if len(data) - start != math.prod(shape) or len(shape) > DIMENSIONS:
        raise corrupt(path, f"it holds {len(data) - start} bytes for {list(shape)}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return read_bytes(path)
    check_plain(path)
    with gzip.open(path) as stream:
        return unpacked(cast("IO[bytes]", stream), path)


def corrupt(path: Path, reason: str) -> LoadRefusedError:
    """Return the error for a data file that cannot be read."""
    return LoadRefusedError(
        f"a data file cannot be read: {reason}",
        code="CORRUPT_DATA",
        where=str(path),
        hint="get the file again from where it was published",
    )


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    for place in PLACES:
        found: dict[str, tuple[Path, Path]] = {}
        for prefix, split in PAIRS.items():
            images = _find(folder / place, f"{prefix}-images")
            labels = _find(folder / place, f"{prefix}-labels")
            if images and labels:
                found.setdefault(split, (images, labels))
        if found:
            return found
    return {}


def _find(folder: Path, start: str) -> Path | None:
    names = (f"{start}{dash}{kind}" for dash in "-." for kind in ("idx3-ubyte", "idx1-ubyte"))
    paths = (folder / f"{name}{end}" for name in names for end in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


FORMATS.add(
    "mnist-idx",
    DataFormat(recognises, read),
    summary="MNIST files: train-images-idx3-ubyte[.gz], train-labels-..., t10k-...",
    source="yann.lecun.com/exdb/mnist",
)
