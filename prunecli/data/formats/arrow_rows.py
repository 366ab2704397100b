"""Rows of Arrow files that hold encoded images and labels, mapped into memory, not loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.data.walk import leads_out
from prunecli.errors import LoadRefusedError
from prunecli.files import IMAGE_SHARE, check_plain, read_bytes, read_json, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Pictures:
    """A column of images: `chunks` of it, which start at the rows `starts` [chunks + 1].

    A row is the bytes of an image file, or them with a path: {bytes, path}, of which one may be
    missing. `order` [n], if there is one, says which row stands at each place.
    """

    chunks: Sequence[pa.Array]
    starts: NDArray[np.int64]
    folder: Path
    order: NDArray[np.int64] | None = None

    def content(self, place: int) -> bytes:
        """Return the bytes of an image file; raises `OSError` where there is none."""
        row = place if self.order is None else int(self.order[place])
        at = int(np.searchsorted(self.starts, row, side="right")) - 1
        value = self.chunks[at][row - int(self.starts[at])].as_py()
        stored = value.get("bytes") if isinstance(value, dict) else value
        if stored is not None:
            return bytes(stored)
        path = value.get("path") if isinstance(value, dict) else None
        if not path:
            raise FileNotFoundError(f"row {row} holds no image")
        file = Path(self.folder, path)
        if leads_out(str(file), str(self.folder)):
            raise FileNotFoundError(f"{file} lies outside of the data set")
        return read_bytes(file, share=IMAGE_SHARE)


def read_columns(
    folder: Path, files: Sequence[str], *, image: str, label: str
) -> tuple[Pictures, NDArray[Any]]:
    """Return the images and the labels [n] of Arrow files (none: those that the state names).

    Labels are int64, -1 where one is missing, or objects, None where one is missing. Raises
    `LoadRefusedError` (`CORRUPT_DATA`).
    """
    import pyarrow as pa

    order = None
    with reading(folder, _corrupt):
        if not files:
            files, order = _state(folder)
        tables = [_table(folder / name).select([image, label]) for name in files]
        table = pa.concat_tables(tables)
        pictures, labels = table.column(image), table.column(label)
        # A damaged file may point anywhere; reading such a place would end the process.
        for column in (pictures, labels):
            column.validate(full=True)
        _check_kind(pictures.type)
        starts = np.cumsum([0, *(len(chunk) for chunk in pictures.chunks)])
        numbers = _labels(labels)
        if order is not None:
            if len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(table):
                raise ValueError("its indices go beyond its rows")
            numbers = numbers[order]
    return Pictures(pictures.chunks, starts, folder, order), numbers


def _corrupt(path: Path, reason: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"the saved data set cannot be read: {reason}",
        code="CORRUPT_DATA",
        where=str(path),
        hint="save it again: dataset.save_to_disk(FOLDER)",
    )


def _state(folder: Path) -> tuple[list[str], NDArray[np.int64] | None]:
    """Return the Arrow files of a saved data set, and the order of its rows where one was saved."""
    state = read_json(folder / "state.json")
    files = [_inside(entry["filename"]) for entry in state["_data_files"]]
    if not files:
        raise ValueError("it names no Arrow files")
    indices = [_inside(entry["filename"]) for entry in state.get("_indices_data_files") or ()]
    if not indices:
        return files, None
    columns = [_table(folder / name).column("indices").to_numpy() for name in indices]
    return files, np.concatenate(columns).astype(np.int64)


def _inside(name: Any) -> str:
    """Return the name of a file beside the state; a path that leads elsewhere is refused."""
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{name!r} is no file of the folder")
    return name


def _table(path: Path) -> pa.Table:
    import pyarrow as pa

    check_plain(path)
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _check_kind(kind: pa.DataType) -> None:
    import pyarrow as pa

    names = [kind.field(at).name for at in range(kind.num_fields)]
    if pa.types.is_struct(kind) and "bytes" in names:
        kind = kind.field(names.index("bytes")).type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise TypeError(f"its images are {kind}, not the bytes of image files")


def _labels(column: pa.ChunkedArray) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        numbers = column.cast(pa.int64()).fill_null(-1)
        return np.asarray(numbers.to_numpy(), dtype=np.int64)
    return np.array([*column.to_pylist(), None], dtype=object)[:-1]
