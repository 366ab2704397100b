"""Exact nearest neighbours in blocks: a float32 product proposes, float64 differences decide."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunecli.errors import DeviceError, InputError
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

WORKSPACE = 128 * 2**20
"""Bytes that one temporary array may take; a handful of them live at a time."""

ROWS = 4096
"""Most rows of the table that are looked at together."""

TILE = 1024
"""Most queries that are compared with those rows together."""

_UNIT = 2.0**-24  # unit roundoff of float32


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of each query, nearest first: `indices` and Euclidean `distances` [m, k]."""

    indices: Indices
    distances: Floats


def nearest_neighbours(
    features: NDArray[np.generic],
    queries: Indices,
    *,
    neighbours: int,
    workspace: int = WORKSPACE,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Neighbours:
    """Return the `neighbours` nearest rows of `features` [N, d] to each of its rows `queries` [m].

    A row is never its own neighbour, though an identical other row is; of rows at the same distance
    the one with the lower index comes first. Exact to the rounding of float64, whatever the scale
    and offset of the features: on `device` a float32 product only rules out rows that are too far
    even if it is off by all that it can be, and what is left is measured anew in float64. Memory
    does not grow with N beyond the features and the result. Raises `InputError`: `BAD_FEATURES`,
    `TOO_FEW_SAMPLES`; `DeviceError`: `DEVICE_IMPRECISE`.
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
    blocks = list(_blocks(len(features), frame.rows))
    held = list(_blocks(len(queries), max(1, workspace // (4 * len(frame.mean)))))
    done = 0
    with _full_precision(torch.device(device)):
        for chunk in held:
            search = _Search.start(frame, queries[chunk], neighbours, torch.device(device))
            for block in blocks:
                search.visit_(block)
                done += 1
                progress(Step("neighbours", done, len(held) * len(blocks)))
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


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Let no product be rounded more than float32 does, whatever the caller has set for training.

    TensorFloat-32 and bfloat16 would break the bound that `_Frame` states.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True, eq=False)
class _Frame:
    """The features' centre and scale, and how far a float32 product of them can be off.

    With x and q centred and scaled, |x|^2 - 2 q.x as computed differs from the true value by at
    most `relative` (|x|^2 + |q|^2) + `absolute`: the usual bound on a sum of d + 1 products in any
    order (Higham 2002, section 3.1), in which |x|^2 may have come first, plus the conversions
    around it, and what centring in float64 loses when the offset is large.
    """

    features: NDArray[np.generic]
    mean: Floats
    scale: float
    relative: float
    absolute: float
    rows: int
    tile: int
    workspace: int

    @classmethod
    def of(cls, features: NDArray[np.generic], workspace: int) -> _Frame:
        check_features(features)
        width = features.shape[1]
        low = features.min(axis=0).astype(np.float64)
        high = features.max(axis=0).astype(np.float64)
        scale = float((high - low).max()) or 1.0
        mean = features.mean(axis=0, dtype=np.float64)
        product = (width + 1) * _UNIT
        gamma = product / (1 - product) if product < 0.5 else 1.0
        lost = 2.0**-51 * width**0.5 * float(np.maximum(abs(low), abs(high)).max()) / scale
        rows = int(np.clip(workspace // (8 * width), 1, ROWS))
        return cls(
            features,
            mean,
            scale,
            relative=2 * gamma + 16 * _UNIT,
            absolute=1e-30 + lost**2 / _UNIT,
            rows=rows,
            # Where all rows are alike every pair passes, and takes some 64 bytes on its way.
            tile=int(np.clip(workspace // (32 * rows), 1, TILE)),
            workspace=workspace,
        )

    def centred(self, rows: slice | Indices) -> tuple[Tensor, Floats]:
        """Return rows centred and scaled as float32 [n, d], and their squared norms [n]."""
        exact = self.features[rows].astype(np.float64)
        exact -= self.mean
        exact /= self.scale
        return torch.from_numpy(exact.astype(np.float32)), np.einsum("nd,nd->n", exact, exact)

    def squares(self, left: Indices, right: Indices) -> Floats:
        """Return the squared distances of pairs of rows [p] in float64."""
        result = np.empty(len(left), dtype=np.float64)
        for part in _blocks(len(left), max(1, self.workspace // (16 * len(self.mean)))):
            difference = self.features[left[part]].astype(np.float64)
            difference -= self.features[right[part]].astype(np.float64)
            difference /= self.scale
            result[part] = np.einsum("pd,pd->p", difference, difference)
        return result


@dataclass(frozen=True, eq=False)
class _Block:
    """Some rows of the table, from `start` on: `points` and `lowered` norms are on the device."""

    start: int
    points: Tensor
    lowered: Tensor
    norms: Floats


@dataclass(eq=False)
class _Search:
    """The best rows found so far for some queries, as blocks of rows are visited in their order.

    `bounds` [m] is such that a row whose computed |x|^2 (1 - relative) - 2 q.x lies above it cannot
    be among the k nearest of that query.
    """

    frame: _Frame
    queries: Indices
    points: Tensor
    scratch: Tensor
    norms: Floats
    bounds: Floats
    indices: Indices
    squares: Floats

    @classmethod
    def start(
        cls, frame: _Frame, queries: Indices, neighbours: int, device: torch.device
    ) -> _Search:
        shape = (len(queries), neighbours)
        points = torch.empty((len(queries), len(frame.mean)), dtype=torch.float32, device=device)
        norms = np.empty(len(queries))
        for part in _blocks(len(queries), frame.rows):
            some, norms[part] = frame.centred(queries[part])
            points[part] = some.to(device)
        return cls(
            frame,
            queries,
            points,
            torch.empty(frame.tile * frame.rows, dtype=torch.float32, device=device),
            norms,
            bounds=np.full(len(queries), np.inf),
            indices=np.full(shape, len(frame.features), dtype=np.int64),
            squares=np.full(shape, np.inf),
        )

    def visit_(self, rows: slice) -> None:
        """Take in some rows of the table; those before them have been visited."""
        block = self._block(rows)
        own = self.queries - rows.start
        for tile in _blocks(len(self.queries), self.frame.tile):
            points = self.points[tile]
            # One array for all products: the pages of a new one take as long to get as a product.
            lower = self.scratch[: len(points) * len(block.norms)].view(len(points), -1)
            torch.addmm(block.lowered, points, block.points.T, alpha=-2, out=lower)
            mine = np.flatnonzero((own[tile] >= 0) & (own[tile] < len(block.norms)))
            lower[torch.from_numpy(mine), torch.from_numpy(own[tile][mine])] = torch.inf
            found, columns, values = self._propose(tile, lower, block)
            if len(found):
                self._merge_(found, columns, values, block)

    def _block(self, rows: slice) -> _Block:
        device = self.points.device
        points, norms = self.frame.centred(rows)
        lowered = torch.from_numpy((norms * (1 - self.frame.relative)).astype(np.float32))
        return _Block(rows.start, points.to(device), lowered.to(device), norms)

    def _propose(
        self, tile: slice, lower: Tensor, block: _Block
    ) -> tuple[Indices, Indices, Floats]:
        """Return (query, row of the block, value) of every pair that may be among the nearest."""
        count = self.indices.shape[1]
        bounds = _rounded_up(self.bounds[tile]).to(lower.device)
        # Most queries have nothing to find in most blocks, which their lowest value says.
        near = (lower.amin(dim=1) <= bounds).nonzero().flatten()
        if len(near) < len(lower):
            lower, bounds = lower[near], bounds[near]
        rows = near.cpu().numpy() + tile.start
        known = bool(bounds.isfinite().all())
        pairs = (lower <= bounds[:, None]).nonzero() if known else None
        if pairs is None or len(pairs) > 4 * count * len(lower):
            tightened = np.minimum(self.bounds[rows], self._block_bounds(rows, lower, block))
            pairs = (lower <= _rounded_up(tightened).to(lower.device)[:, None]).nonzero()
        values = lower[pairs[:, 0], pairs[:, 1]].cpu().numpy().astype(np.float64)
        found, columns = pairs.cpu().numpy().T
        # A query's own entry is infinite, and passes where no bound is known yet.
        other = np.isfinite(values)
        return rows[found[other]], columns[other], values[other]

    def _block_bounds(self, rows: Indices, lower: Tensor, block: _Block) -> Floats:
        count = self.indices.shape[1]
        if lower.shape[1] < count:
            return np.full(len(lower), np.inf)
        found = torch.topk(lower, count, largest=False, sorted=False)
        relative, absolute = self.frame.relative, self.frame.absolute
        upper = found.values.cpu().numpy().astype(np.float64)
        upper += 2 * relative * block.norms[found.indices.cpu().numpy()]
        highest: Floats = upper.max(axis=1) + 2 * relative * self.norms[rows] + 2 * absolute
        return highest

    def _merge_(self, rows: Indices, columns: Indices, values: Floats, block: _Block) -> None:
        """Keep the best of what is known and the pairs (query, row of the block)."""
        touched = np.unique(rows)
        count = self.indices.shape[1]
        found = columns + block.start
        squares = self.frame.squares(self.queries[rows], found)
        self._check(values + self.norms[rows] - squares, self.norms[rows] + block.norms[columns])
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
        bounds = furthest - (1 - relative) * self.norms[touched] + absolute
        # Nothing is nearer than a distance of zero, and later rows lose a tie.
        self.bounds[touched] = np.where(furthest > 0, bounds, -np.inf)

    def _check(self, errors: Floats, norms: Floats) -> None:
        """Raise `DeviceError` where a product was further off than float32 can be."""
        allowed = 2 * self.frame.relative * norms + self.frame.absolute
        if (abs(errors) > allowed).any():
            raise DeviceError(
                "products on this device are less exact than float32 allows",
                code="DEVICE_IMPRECISE",
                where=str(self.points.device),
                hint="look for neighbours on the CPU: --device cpu",
            )


def _rounded_up(bounds: Floats) -> Tensor:
    return torch.from_numpy(np.nextafter(bounds.astype(np.float32), np.float32(np.inf)))
