"""Look at images once: their sizes, whether they can be read, whether one comes twice."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from prunecli.data.source import Arrays, DataSource, Packed, RawSplit, labels_of, name_of
from prunecli.data.survey.image_facts import DIGEST, KINDS, Failure, Look, look_at
from prunecli.data.survey.near_duplicates import near_duplicates
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

CHUNK = 256
"""Images that one thread looks at before it reports."""

LISTED = 1000
"""Names of unusual images of one kind that are listed; they are counted to the last."""

GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"})


@dataclass(frozen=True)
class Survey:
    """What the images of a data set were found to be.

    `sizes` counts (width, height) and `modes` Pillow's words for pixels (`RGB`, `L`), the commonest
    first; `kinds` counts what deserves a look (`tiny`, `huge`, `animated`, `CMYK`, `16-bit`, `grey
    among colour`, and why images cannot be read: `empty`, `damaged`, `too large to decode`), and
    `listed` names them, the first thousand of a kind. `duplicates` are groups of names of images
    with the same content, `mislabelled` the number of groups that are in more than one class,
    `leaked` in more than one split; `near_duplicates` are groups of those that only look the same
    (`prunecli.data.survey.near_duplicates`). `looked_at` of `total` images were looked at.
    """

    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    mislabelled: int
    leaked: int
    kinds: Mapping[str, int]
    near_duplicates: tuple[tuple[str, ...], ...]
    listed: Mapping[str, tuple[str, ...]]
    looked_at: int
    total: int

    @property
    def is_grey(self) -> bool:
        """Whether no image has colour."""
        return all(mode in GREY_MODES for mode in self.modes)


@dataclass(frozen=True, eq=False)
class _Part:
    """Those images of a split that are looked at: `positions` [n] in it, ascending."""

    split: str
    raw: RawSplit
    positions: NDArray[np.int64]

    def name(self, at: int) -> str:
        prefix = self.split if isinstance(self.raw, Arrays | Packed) else ""
        return prefix + name_of(self.raw, int(self.positions[at]))


@dataclass
class _Seen:
    """What is kept of every image: a row in arrays, for there may be millions.

    `digests` are uint8 [n, DIGEST], `thumbnails` uint8 [n, 8, 9], `whole` bool [n].
    """

    digests: NDArray[np.uint8]
    thumbnails: NDArray[np.uint8]
    whole: NDArray[np.bool_]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, list[int]] = field(default_factory=dict)
    greys: list[int] = field(default_factory=list)


def survey(
    source: DataSource, *, limit: int | None = None, seed: int = 0, progress: Progress = silent
) -> Survey:
    """Decode the images of all splits in parallel, keeping nothing but what `Survey` says.

    At most `limit`, drawn at random. The content of an image file is its bytes, that of an image in
    an array its pixels.
    """
    total = sum(len(raw) for raw in source.splits.values())
    parts = _parts(source, limit, seed)
    starts = np.cumsum([0, *(len(part.positions) for part in parts)])
    seen = _look_at_all(parts, starts, progress)
    labels = np.concatenate([labels_of(part.raw)[part.positions] for part in parts])
    splits = np.repeat(np.arange(len(parts)), np.diff(starts))

    def name(row: int) -> str:
        at = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[at].name(row - int(starts[at]))

    rows = np.flatnonzero(seen.whole)
    groups = _equal_rows(seen.digests[rows])
    twins = [rows[group] for group in groups if len(group) > 1]
    firsts = rows[[group[0] for group in groups]] if groups else rows
    alike = near_duplicates(seen.thumbnails[firsts])
    if 0 < len(seen.greys) < len(rows):
        seen.kinds["grey among colour"] = seen.greys
    return Survey(
        sizes=dict(seen.sizes.most_common()),
        modes=dict(seen.modes.most_common()),
        unreadable=tuple(name(row) for row in np.flatnonzero(~seen.whole).tolist()),
        duplicates=tuple(tuple(map(name, group.tolist())) for group in twins),
        mislabelled=sum(len(np.unique(labels[group])) > 1 for group in twins),
        leaked=sum(len(np.unique(splits[group])) > 1 for group in twins),
        kinds={kind: len(found) for kind, found in seen.kinds.items()},
        near_duplicates=tuple(tuple(map(name, firsts[group].tolist())) for group in alike),
        listed={
            kind: tuple(map(name, sorted(found)[:LISTED])) for kind, found in seen.kinds.items()
        },
        looked_at=len(labels),
        total=total,
    )


def _parts(source: DataSource, limit: int | None, seed: int) -> list[_Part]:
    """Return what is looked at of every split: all, or as much of each as of the whole."""
    sizes = np.array([len(raw) for raw in source.splits.values()])
    ends = np.cumsum(sizes)
    total = int(ends[-1])
    if limit is None or limit >= total:
        chosen = np.arange(total)
    else:
        random = np.random.default_rng(seed)
        chosen = np.sort(random.choice(total, limit, replace=False))
    return [
        _Part(split, raw, chosen[(chosen >= end - size) & (chosen < end)] - (end - size))
        for (split, raw), size, end in zip(source.splits.items(), sizes, ends, strict=True)
    ]


def _look_at_all(parts: Sequence[_Part], starts: NDArray[np.int64], progress: Progress) -> _Seen:
    count = int(starts[-1])
    seen = _Seen(
        np.zeros((count, DIGEST), np.uint8),
        np.zeros((count, 8, 9), np.uint8),
        np.zeros(count, np.bool_),
    )
    for row, look in enumerate(_looks(parts)):
        if isinstance(look, Failure):
            seen.kinds.setdefault(look.reason, []).append(row)
        else:
            _keep_(seen, row, look)
        if (row + 1) % CHUNK == 0 or row + 1 == count:
            progress(Step("look at images", row + 1, count))
    return seen


def _keep_(seen: _Seen, row: int, look: Look) -> None:
    seen.digests[row] = np.frombuffer(look.digest, np.uint8)
    seen.thumbnails[row] = look.thumbnail
    seen.whole[row] = True
    seen.sizes[look.size] += 1
    seen.modes[look.mode] += 1
    if look.mode in GREY_MODES:
        seen.greys.append(row)
    for kind, applies in KINDS.items():
        if applies(look):
            seen.kinds.setdefault(kind, []).append(row)


def _looks(parts: Sequence[_Part]) -> Iterator[Look | Failure]:
    """Yield what every image is, in order, a few chunks ahead of the reader."""
    threads = os.cpu_count() or 1
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        # We have a limit of our own, and count what is beyond it.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for part in parts:
            chunks = [
                part.positions[start : start + CHUNK]
                for start in range(0, len(part.positions), CHUNK)
            ]
            for looks in pool.map(partial(_look_at_some, part.raw), chunks):
                yield from looks


def _look_at_some(raw: RawSplit, positions: NDArray[np.int64]) -> list[Look | Failure]:
    return [look_at(raw, position) for position in positions.tolist()]


def _equal_rows(digests: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return the positions of equal rows in groups, ascending, by their first positions."""
    if not len(digests):
        return []
    values = np.ascontiguousarray(digests).view(f"V{DIGEST}").ravel()
    _, which = np.unique(values, return_inverse=True)
    order = np.argsort(which, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(which[order])) + 1)
    return sorted(groups, key=lambda group: int(group[0]))
