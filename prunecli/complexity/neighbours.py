"""Exact nearest neighbours in blocks: a float32 product proposes, float64 differences decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

WORKSPACE = 128 * 2**20
"""Bytes that one temporary array may take; a handful of them live at a time."""

ROWS = 4096
"""Most rows of a block on either side, so that a block of products fits a workspace."""

_UNIT = 2.0**-24  # unit roundoff of float32


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of each query, nearest first: `indices` and Euclidean `distances` [m, k]."""

    indices: Indices
    distances: Floats


def nearest_neighbours(
    features: NDArray[np.generic], queries: Indices, *, neighbours: int, workspace: int = WORKSPACE
) -> Neighbours:
    """Return the `neighbours` nearest rows of `features` [N, d] to each of its rows `queries` [m].

    A row is never its own neighbour, though an identical other row is; of rows at the same distance
    the one with the lower index comes first. Exact to the rounding of float64, whatever the scale
    and offset of the features. Memory does not grow with N beyond the features and the result.
    Raises `InputError`: `BAD_FEATURES`, `TOO_FEW_SAMPLES`.
    """
    if len(features) <= neighbours:
        raise InputError(
            f"{neighbours} neighbours asked for, but there are only {len(features)} samples",
            code="TOO_FEW_SAMPLES",
            hint="ask for fewer neighbours than there are other samples",
        )
    frame = _Frame.of(features, workspace)
    indices = np.empty((len(queries), neighbours), dtype=np.int64)
    distances = np.empty((len(queries), neighbours), dtype=np.float64)
    for chunk in _blocks(len(queries), frame.rows):
        search = _Search.start(frame, queries[chunk], neighbours)
        for block in _blocks(len(features), frame.rows):
            search.visit_(block)
        indices[chunk], distances[chunk] = search.indices, np.sqrt(search.squares) * frame.scale
    return Neighbours(indices, distances)


def check_features(features: NDArray[np.generic]) -> None:
    """Raise `InputError` (`BAD_FEATURES`) unless `features` is a finite, non-empty [N, d] array."""
    if features.ndim != 2 or not features.size:
        raise InputError(
            f"features must be a table [samples, features], not of shape {features.shape}",
            code="BAD_FEATURES",
            hint="flatten images to one row each, as embed_pixels does",
        )
    if features.dtype.kind not in "fiub":
        raise InputError(f"features are no real numbers ({features.dtype})", code="BAD_FEATURES")
    low, high = float(features.min()), float(features.max())
    if not np.isfinite(high - low):
        raise InputError(
            "features hold NaN, infinities, or values too large to subtract",
            code="BAD_FEATURES",
            hint="check the embedding that made them",
        )


def _blocks(count: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


@dataclass(frozen=True, eq=False)
class _Frame:
    """The features' centre and scale, and how far a float32 product of them can be off.

    With x and q centred and scaled, |x|^2 - 2 q.x + |q|^2 as computed differs from the squared
    distance by at most `relative` (|x|^2 + |q|^2) + `absolute`: the usual bound on an inner product
    of length d (Higham 2002, section 3.1) plus the conversions and sums around it, and what
    centring in float64 loses when the offset is large.
    """

    features: NDArray[np.generic]
    mean: Floats
    scale: float
    relative: float
    absolute: float
    rows: int
    workspace: int

    @classmethod
    def of(cls, features: NDArray[np.generic], workspace: int) -> _Frame:
        check_features(features)
        width = features.shape[1]
        low = features.min(axis=0).astype(np.float64)
        high = features.max(axis=0).astype(np.float64)
        scale = float((high - low).max()) or 1.0
        mean = features.mean(axis=0, dtype=np.float64)
        product = width * _UNIT
        gamma = product / (1 - product) if product < 0.5 else 1.0
        lost = 2.0**-51 * width**0.5 * float(np.maximum(abs(low), abs(high)).max()) / scale
        return cls(
            features,
            mean,
            scale,
            relative=gamma + 16 * _UNIT,
            absolute=1e-30 + lost**2 / _UNIT,
            rows=int(np.clip(workspace // (8 * width), 1, ROWS)),
            workspace=workspace,
        )

    def centred(self, rows: slice | Indices) -> tuple[NDArray[np.float32], Floats]:
        """Return rows centred and scaled as float32 [n, d], and their squared norms [n]."""
        exact = self.features[rows].astype(np.float64)
        exact -= self.mean
        exact /= self.scale
        return exact.astype(np.float32), np.einsum("nd,nd->n", exact, exact)

    def squares(self, left: Indices, right: Indices) -> Floats:
        """Return the squared distances of pairs of rows [p] in float64."""
        result = np.empty(len(left), dtype=np.float64)
        for part in _blocks(len(left), max(1, self.workspace // (16 * len(self.mean)))):
            difference = self.features[left[part]].astype(np.float64)
            difference -= self.features[right[part]].astype(np.float64)
            difference /= self.scale
            result[part] = np.einsum("pd,pd->p", difference, difference)
        return result


@dataclass(eq=False)
class _Search:
    """The best rows found so far for some queries, as blocks of rows are visited.

    `bounds` [m] is such that a row whose computed |x|^2 (1 - relative) - 2 q.x lies above it cannot
    be among the k nearest of that query.
    """

    frame: _Frame
    queries: Indices
    points: NDArray[np.float32]
    norms: Floats
    bounds: Floats
    indices: Indices
    squares: Floats

    @classmethod
    def start(cls, frame: _Frame, queries: Indices, neighbours: int) -> _Search:
        points, norms = frame.centred(queries)
        shape = (len(queries), neighbours)
        return cls(
            frame,
            queries,
            points,
            norms,
            bounds=np.full(len(queries), np.inf),
            indices=np.full(shape, len(frame.features), dtype=np.int64),
            squares=np.full(shape, np.inf),
        )

    def visit_(self, block: slice) -> None:
        """Take in the rows of `block`."""
        points, norms = self.frame.centred(block)
        lower = self.points @ points.T
        lower *= np.float32(-2.0)
        lower += (norms * (1 - self.frame.relative)).astype(np.float32)
        mine = np.flatnonzero((self.queries >= block.start) & (self.queries < block.stop))
        lower[mine, self.queries[mine] - block.start] = np.inf
        rows, columns = self._propose(lower, norms)
        self._merge_(rows, columns + block.start)

    def _propose(self, lower: NDArray[np.float32], norms: Floats) -> tuple[Indices, Indices]:
        """Return (query, row of the block) of every pair that may belong to the nearest."""
        bounds, count = self.bounds, self.indices.shape[1]
        known = bool(np.isfinite(bounds).all())
        passing = lower <= _rounded_up(bounds)[:, None] if known else None
        if passing is None or np.count_nonzero(passing) > 4 * self.indices.size:
            bounds = np.minimum(bounds, self._block_bounds(lower, norms, count))
            passing = lower <= _rounded_up(bounds)[:, None]
            # A query's own entry is infinite, and passes where no bound is known yet.
            passing &= np.isfinite(lower)
        rows, columns = np.divmod(np.flatnonzero(passing), lower.shape[1])
        return rows, columns

    def _block_bounds(self, lower: NDArray[np.float32], norms: Floats, count: int) -> Floats:
        if lower.shape[1] < count:
            return np.full(len(lower), np.inf)
        found = torch.topk(torch.from_numpy(lower), count, largest=False, sorted=False)
        relative, absolute = self.frame.relative, self.frame.absolute
        upper = found.values.numpy().astype(np.float64)
        upper += 2 * relative * norms[found.indices.numpy()]
        highest: Floats = upper.max(axis=1) + 2 * relative * self.norms + 2 * absolute
        return highest

    def _merge_(self, rows: Indices, found: Indices) -> None:
        """Keep the best of what is known and the pairs (query row, found index)."""
        touched = np.unique(rows)
        count = self.indices.shape[1]
        squares = self.frame.squares(self.queries[rows], found)
        all_rows = np.concatenate([np.repeat(touched, count), rows])
        all_found = np.concatenate([self.indices[touched].ravel(), found])
        all_squares = np.concatenate([self.squares[touched].ravel(), squares])
        order = np.lexsort((all_found, all_squares, all_rows))
        ordered = all_rows[order]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        best = order[rank < count].reshape(-1, count)
        self.indices[touched] = all_found[best]
        self.squares[touched] = all_squares[best]
        relative, absolute = self.frame.relative, self.frame.absolute
        furthest = self.squares[touched, -1]
        self.bounds[touched] = furthest - (1 - relative) * self.norms[touched] + absolute


def _rounded_up(bounds: Floats) -> NDArray[np.float32]:
    return np.nextafter(bounds.astype(np.float32), np.float32(np.inf))
