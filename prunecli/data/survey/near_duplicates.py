"""Images that are nearly the same: scaled, compressed again, or a little lighter."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Iterator

Thumbnails: TypeAlias = NDArray[np.uint8]
"""Grey pictures [n, 8, 9]: all that is kept of an image."""

BITS = 3
"""Bits of 64 in which the perceptual hashes of near duplicates differ at most."""

LEVELS = 4.0
"""Grey levels by which their thumbnails differ at most, on average, after their means are equal."""

FLAT = 8
"""Grey levels that a thumbnail spans at least: emptier pictures all look the same."""

CROWD = 4096
"""Images that share a quarter of a hash, above which only those of equal hashes are compared."""


def thumbnail(image: Image.Image) -> Thumbnails:
    """Return a grey picture [8, 9] of an image."""
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    return np.asarray(small, np.uint8)


def perceptual_hashes(thumbnails: Thumbnails) -> NDArray[np.uint64]:
    """Return the difference hash [n] of pictures: where brightness grows from left to right.

    Source: N. Krawetz, "Kind of Like That", 2013 (dHash).
    """
    grows = thumbnails[:, :, 1:] > thumbnails[:, :, :-1]
    weights = np.left_shift(np.uint64(1), np.arange(64, dtype=np.uint64))
    bits = grows.reshape(len(grows), 64).astype(np.uint64)
    hashes: NDArray[np.uint64] = (bits * weights).sum(axis=1, dtype=np.uint64)
    return hashes


def near_duplicates(thumbnails: Thumbnails) -> tuple[NDArray[np.int64], ...]:
    """Return groups of positions of pictures that are near duplicates of each other, ascending.

    Hashes that differ in three bits agree in one quarter at least, so that only pictures that share
    a quarter are compared: the work grows with their number, not with its square.
    """
    count = len(thumbnails)
    spans = np.ptp(thumbnails.reshape(count, -1).astype(np.int16), axis=1) if count else []
    rows = np.flatnonzero(np.asarray(spans) >= FLAT)
    if rows.size < 2:
        return ()
    hashes = perceptual_hashes(thumbnails[rows])
    pictures = thumbnails[rows].reshape(rows.size, -1).astype(np.float32)
    pictures -= pictures.mean(axis=1, keepdims=True)
    pairs = [pair for bucket in _buckets(hashes) for pair in _alike(bucket, hashes, pictures)]
    if not pairs:
        return ()
    left, right = np.array(pairs).T
    links = coo_array((np.ones(len(left)), (left, right)), shape=(rows.size, rows.size))
    _, labels = connected_components(links, directed=False)
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return tuple(rows[group] for group in groups if group.size > 1)


def _buckets(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Yield positions that share a quarter of their hash, or all of it where those are many."""
    for quarter in range(4):
        shift = np.uint64(16 * quarter)
        keys = np.right_shift(hashes, shift) & np.uint64(0xFFFF)
        for bucket in _equal(keys, np.arange(len(hashes))):
            yield from [bucket] if bucket.size <= CROWD else _equal(hashes[bucket], bucket)


def _equal(keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    order = np.argsort(keys, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if group.size > 1:
            yield positions[group]


def _alike(
    bucket: NDArray[np.int64], hashes: NDArray[np.uint64], pictures: NDArray[np.float32]
) -> Iterator[tuple[int, int]]:
    for at, first in enumerate(bucket[:-1]):
        others = bucket[at + 1 :]
        others = others[np.bitwise_count(hashes[others] ^ hashes[first]) <= BITS]
        if others.size:
            apart = np.abs(pictures[others] - pictures[first]).mean(axis=1)
            yield from ((int(first), int(other)) for other in others[apart <= LEVELS])
