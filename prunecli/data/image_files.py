"""Image files of one split, kept small: a million of them take tens of megabytes, not hundreds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


CHUNK = 4096
"""Names that are put end to end at a time."""


@dataclass(frozen=True)
class Sample:
    """One image file and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class Run:
    """File names in one folder, all of the same class, or each of its own."""

    folder: str
    names: Sequence[str]
    label: int | Sequence[int]


@dataclass(frozen=True, eq=False)
class _Listing:
    """Names, end to end in `text`, whose [at] starts at `starts[at]`, of the folder `inside[at]`.

    `starts` is int64 [n + 1], `inside` int32 [n] and `labels` int32 [n].
    """

    folders: tuple[str, ...]
    inside: NDArray[np.int32]
    text: bytes
    starts: NDArray[np.int64]
    labels: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Files(Sequence[Sample]):
    """Image files with their classes, of which a `Sample` is made when it is asked for.

    `rows` are int64 [n] positions in a listing, which all choices from it share.
    """

    listing: _Listing
    rows: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The index of each file's class, [n]."""
        return self.listing.labels[self.rows].astype(np.int64)

    def name(self, position: int) -> str:
        """Return the path of one file."""
        listing, row = self.listing, self.rows[position]
        text = listing.text[listing.starts[row] : listing.starts[row + 1]]
        return os.path.join(listing.folders[listing.inside[row]], os.fsdecode(text))  # noqa: PTH118

    def chosen(self, indices: NDArray[np.int64]) -> Files:
        """Return the files at `indices`, in that order."""
        return Files(self.listing, self.rows[indices])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> Files: ...
    def __getitem__(self, position: int | slice) -> Sample | Files:
        if isinstance(position, slice):
            return Files(self.listing, self.rows[position])
        label = int(self.listing.labels[self.rows[position]])
        return Sample(Path(self.name(position)), label)


def files_of(runs: Iterable[Run]) -> Files:
    """Return the files of some folders, in the order in which they come."""
    folders: list[str] = []
    texts: list[bytes] = []
    lengths: list[NDArray[np.int64]] = []
    counts: list[int] = []
    labels: list[NDArray[np.int32]] = []
    for run in runs:
        folders.append(run.folder)
        counts.append(len(run.names))
        labels.append(np.broadcast_to(np.array(run.label, np.int32), len(run.names)))
        for start in range(0, len(run.names), CHUNK):
            encoded = [os.fsencode(name) for name in run.names[start : start + CHUNK]]
            texts.append(b"".join(encoded))
            lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
    listing = _Listing(
        folders=tuple(folders),
        inside=np.repeat(np.arange(len(folders), dtype=np.int32), counts),
        text=b"".join(texts),
        starts=ends,
        labels=np.concatenate([np.zeros(0, np.int32), *labels]),
    )
    return Files(listing, np.arange(len(listing.labels)))


def joined_files(parts: Sequence[Files]) -> Files:
    """Return the files of several splits as one."""
    folders: tuple[str, ...] = ()
    inside: list[NDArray[np.int32]] = []
    starts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    rows: list[NDArray[np.int64]] = []
    count, length = 0, 0
    for part in parts:
        listing = part.listing
        inside.append(listing.inside + np.int32(len(folders)))
        folders += listing.folders
        starts.append(listing.starts[1:] + length)
        rows.append(part.rows + count)
        count, length = count + len(listing.labels), length + len(listing.text)
    listing = _Listing(
        folders=folders,
        inside=np.concatenate(inside),
        text=b"".join(part.listing.text for part in parts),
        starts=np.concatenate(starts),
        labels=np.concatenate([part.listing.labels for part in parts]),
    )
    return Files(listing, np.concatenate(rows))
