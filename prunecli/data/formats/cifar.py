"""CIFAR-10 and CIFAR-100 in their published batch files, pickled or binary."""

from __future__ import annotations

import io
import pickle  # only through an unpickler that knows four harmless names
import pickletools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from prunecli.data.formats.idx import corrupt
from prunecli.data.source import FORMATS, Arrays, DataFormat, DataSource
from prunecli.files import read_bytes, read_text, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
_MOST_TUPLES = 24


@dataclass(frozen=True)
class Layout:
    """One of the four published forms: its files by split, its class names, how a file is read."""

    folder: str
    splits: Mapping[str, tuple[str, ...]]
    names_file: str
    read_names: Callable[[Path], tuple[str, ...]]
    read_batch: Callable[[Path], Arrays]


def recognises(folder: Path) -> bool:
    """Say whether `folder` holds the files of one of the layouts."""
    return _find(folder) is not None


def read(folder: Path) -> DataSource:
    """Read all batches; raises `InputError` (`CORRUPT_DATA`) for a damaged file.

    Pickled batches are read without executing what a pickle may ask for.
    """
    found = _find(folder)
    assert found is not None
    layout, place = found
    splits: dict[str, Arrays] = {}
    for name, files in layout.splits.items():
        batches = [layout.read_batch(place / file) for file in files if (place / file).is_file()]
        if batches:
            splits[name] = Arrays(
                np.concatenate([batch.images for batch in batches]),
                np.concatenate([batch.labels for batch in batches]),
            )
    classes = layout.read_names(place / layout.names_file)
    for name, split in splits.items():
        if len(split) and not 0 <= split.labels.min() <= split.labels.max() < len(classes):
            raise corrupt(place, f"the {name} labels go beyond the {len(classes)} classes")
    missing = [f for files in layout.splits.values() for f in files if not (place / f).is_file()]
    problems = (f"batch files are missing: {', '.join(missing)}",) if missing else ()
    return DataSource(folder, "cifar-batches", classes, splits, problems)


def _empty_array(kind: Any, shape: Any, code: Any) -> Any:
    """Make the array that a pickle fills afterwards; it is never given a size before."""
    if shape != (0,):
        raise pickle.UnpicklingError(f"it wants an array of shape {shape} with nothing in it")
    return _reconstruct(kind, shape, code)


def _latin_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it wants the encoding {encoding!r}")
    return text.encode(encoding)


class BatchUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, strings and numpy arrays; any other object is refused."""

    ALLOWED: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the allowed objects; raise for every other name."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants to run {module}.{name}, which is refused")
        return self.ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """Return a batch's dictionary with text keys, without executing code."""
    with reading(path, corrupt):
        pickled = read_bytes(path)
        _check_operations(pickled)
        content = BatchUnpickler(io.BytesIO(pickled), encoding="bytes").load()
        return {_text(key): value for key, value in content.items()}


def _check_operations(pickled: bytes) -> None:
    """Raise `UnpicklingError` for a few bytes that would take gigabytes or for ever.

    A memo is as long as its highest number says; a tuple in tuples is hashed anew in each.
    """
    tuples = 0
    for operation, argument, _ in pickletools.genops(pickled):
        tuples += operation.name.startswith("TUPLE")
        if tuples > _MOST_TUPLES:
            raise pickle.UnpicklingError("it holds more tuples than arrays and labels need")
        puts = operation.name in {"PUT", "BINPUT", "LONG_BINPUT"}
        if puts and argument is not None and argument > len(pickled):
            raise pickle.UnpicklingError(f"it wants to remember {argument} things")


def _read_pickled_batch(path: Path) -> Arrays:
    content = read_pickle(path)
    images = content.get("data")
    try:
        labels = np.asarray(content.get("labels", content.get("fine_labels")), dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise corrupt(path, f"its labels are no numbers: {error}") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise corrupt(path, "it is not a CIFAR batch")
    if labels.ndim != 1 or images.shape != (len(labels), PIXELS):
        raise corrupt(path, f"{list(images.shape)} pixels with {list(labels.shape)} labels")
    return Arrays(images.reshape(-1, *SHAPE), labels)


def _binary_reader(label_bytes: int) -> Callable[[Path], Arrays]:
    """Read rows of `label_bytes` labels, the last of which counts, and 3,072 pixels."""

    def read_batch(path: Path) -> Arrays:
        with reading(path, corrupt):
            data = np.frombuffer(read_bytes(path), dtype=np.uint8)
        if len(data) % (label_bytes + PIXELS):
            raise corrupt(path, f"its {len(data)} bytes are no whole number of images")
        rows = data.reshape(-1, label_bytes + PIXELS)
        labels = rows[:, label_bytes - 1].astype(np.int64)
        return Arrays(_images(rows[:, label_bytes:]), labels)

    return read_batch


def _images(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows).reshape(-1, *SHAPE)


def _pickled_names(key: str) -> Callable[[Path], tuple[str, ...]]:
    def read_names(path: Path) -> tuple[str, ...]:
        names = read_pickle(path).get(key)
        if not isinstance(names, list) or not names:
            raise corrupt(path, f"it does not hold {key}")
        return tuple(_text(name) for name in names)

    return read_names


def _text_names(path: Path) -> tuple[str, ...]:
    with reading(path, corrupt):
        return tuple(read_text(path).split())


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

LAYOUTS = (
    Layout(
        folder="cifar-10-batches-py",
        splits={"train": _BATCHES, "test": ("test_batch",)},
        names_file="batches.meta",
        read_names=_pickled_names("label_names"),
        read_batch=_read_pickled_batch,
    ),
    Layout(
        folder="cifar-100-python",
        splits={"train": ("train",), "test": ("test",)},
        names_file="meta",
        read_names=_pickled_names("fine_label_names"),
        read_batch=_read_pickled_batch,
    ),
    Layout(
        folder="cifar-10-batches-bin",
        splits={"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        names_file="batches.meta.txt",
        read_names=_text_names,
        read_batch=_binary_reader(1),
    ),
    Layout(
        folder="cifar-100-binary",
        splits={"train": ("train.bin",), "test": ("test.bin",)},
        names_file="fine_label_names.txt",
        read_names=_text_names,
        read_batch=_binary_reader(2),
    ),
)


def _find(folder: Path) -> tuple[Layout, Path] | None:
    for layout in LAYOUTS:
        for place in (folder, folder / layout.folder):
            files = [file for names in layout.splits.values() for file in names]
            if (place / layout.names_file).is_file() and any(
                (place / file).is_file() for file in files
            ):
                return layout, place
    return None


FORMATS.add(
    "cifar-batches",
    DataFormat(recognises, read),
    summary="CIFAR batches: cifar-10-batches-py, cifar-10-batches-bin, cifar-100-...",
    source="Krizhevsky 2009, cs.toronto.edu/~kriz/cifar.html",
)
