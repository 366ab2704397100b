"""Exact nearest neighbours in blocks: rough products propose, float64 differences decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunecli.complexity.products import (
    TINY,
    Floats,
    Frame,
    Indices,
    Rough,
    blocks,
    faster_kind,
    full_precision,
    scratch_for,
)
from prunecli.errors import DeviceError, InputError
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WORKSPACE", "Floats", "Indices", "Neighbours", "nearest_neighbours"]

WORKSPACE = 128 * 2**20
"""Bytes that one temporary array may take; a handful of them live at a time."""


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
    kind: torch.dtype | None = None,
    progress: Progress = silent,
) -> Neighbours:
    """Return the `neighbours` nearest rows of `features` [N, d] to each of its rows `queries` [m].

    A row is never its own neighbour, though an identical other row is; of rows at the same distance
    the one with the lower index comes first. Exact to the rounding of float64, whatever the scale
    and offset of the features: on `device`, products of `kind` (float32 or bfloat16; None: the
    faster) only rule out rows that are too far even if the product is off by all that it can be,
    and what is left is measured anew in float64. Memory does not grow with N beyond the features
    and the result. Raises `InputError`: `BAD_FEATURES`, `TOO_FEW_SAMPLES`; `DeviceError`:
    `DEVICE_IMPRECISE`.
    """
    if len(features) <= neighbours:
        raise InputError(
            f"{neighbours} neighbours asked for, but there are only {len(features)} samples",
            code="TOO_FEW_SAMPLES",
            hint="ask for fewer neighbours than there are other samples",
        )
    frame = Frame.of(features, workspace)
    indices = np.empty((len(queries), neighbours), dtype=np.int64)
    distances = np.empty((len(queries), neighbours), dtype=np.float64)
    parts = list(blocks(len(features), frame.rows))
    held = list(blocks(len(queries), max(1, workspace // (4 * features.shape[1]))))
    done, place = 0, torch.device(device)
    with full_precision(place):
        kind = kind or faster_kind(frame, len(queries), place)
        for chunk in held:
            search = _Search.start(frame, queries[chunk], neighbours, kind=kind, device=place)
            for part in parts:
                search.visit_(part)
                done += 1
                progress(Step("neighbours", done, len(held) * len(parts)))
            search.settle_()
            indices[chunk], distances[chunk] = search.indices, np.sqrt(search.squares) * frame.scale
    return Neighbours(indices, distances)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Queries (as positions), rows of the table, the values of their products, the rows' slack."""

    rows: Indices
    found: Indices
    values: Floats
    slack: Floats

    @property
    def columns(self) -> tuple[Indices, Indices, Floats, Floats]:
        """All four, to be joined with those of other pairs."""
        return self.rows, self.found, self.values, self.slack


@dataclass(eq=False)
class _Search:
    """The best rows found so far for some queries, as blocks of rows are visited in their order.

    With s the squared distance of q and x and v the value of `Rough.times`, |v - (s - |q|^2)| is at
    most slack(q) + 2 slack(x) + TINY, and v <= s - |q|^2 + slack(q) + TINY. So a row whose v lies
    above `bounds` [m] cannot be among the k nearest of that query. `uppers` [m, k] are the least
    v + 2 slack(x), from which a bound follows before anything is measured.
    """

    frame: Frame
    queries: Indices
    rough: Rough
    scratch: Tensor
    bounds: Floats
    uppers: Floats
    indices: Indices
    squares: Floats
    waiting: list[_Pairs]

    @classmethod
    def start(
        cls,
        frame: Frame,
        queries: Indices,
        neighbours: int,
        *,
        kind: torch.dtype,
        device: torch.device,
    ) -> _Search:
        shape = (len(queries), neighbours)
        return cls(
            frame,
            queries,
            Rough.of(frame, queries, kind=kind, device=device),
            scratch_for(frame.tile, frame.rows, device),
            bounds=np.full(len(queries), np.inf),
            uppers=np.full(shape, np.inf),
            indices=np.full(shape, len(frame.features), dtype=np.int64),
            squares=np.full(shape, np.inf),
            waiting=[],
        )

    def visit_(self, rows: slice) -> None:
        """Take in some rows of the table; those before them have been visited."""
        here = self.rough.points
        block = Rough.of(
            self.frame, rows, kind=here.dtype, device=here.device, loss=self.rough.loss
        )
        own = self.queries - rows.start
        for tile in blocks(len(self.queries), self.frame.tile):
            lower = self.rough.times(block, tile, self.scratch)
            mine = np.flatnonzero((own[tile] >= 0) & (own[tile] < len(block.norms)))
            lower[torch.from_numpy(mine), torch.from_numpy(own[tile][mine])] = torch.inf
            found, columns, values = self._propose(tile, lower, block)
            if len(found):
                self._note_(_Pairs(found, columns + rows.start, values, block.slack[columns]))

    def _propose(self, tile: slice, lower: Tensor, block: Rough) -> tuple[Indices, Indices, Floats]:
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

    def _block_bounds(self, rows: Indices, lower: Tensor, block: Rough) -> Floats:
        count = self.indices.shape[1]
        if lower.shape[1] < count:
            return np.full(len(lower), np.inf)
        found = torch.topk(lower, count, largest=False, sorted=False)
        upper = found.values.cpu().numpy().astype(np.float64)
        upper += 2 * block.slack[found.indices.cpu().numpy()]
        highest: Floats = upper.max(axis=1) + 2 * self.rough.slack[rows] + 2 * TINY
        return highest

    def _note_(self, pairs: _Pairs) -> None:
        """Tighten bounds by what the distances of new pairs are at most; measure them later.

        By then tighter bounds have ruled most of them out.
        """
        touched, count = np.unique(pairs.rows), self.indices.shape[1]
        rows = np.concatenate([np.repeat(touched, count), pairs.rows])
        upper = pairs.values + 2 * pairs.slack
        upper = np.concatenate([self.uppers[touched].ravel(), upper])
        least = upper[_least(rows, upper, upper, count)]
        self.uppers[touched] = least
        bounds = least[:, -1] + 2 * self.rough.slack[touched] + 2 * TINY
        self.bounds[touched] = np.minimum(self.bounds[touched], bounds)
        self.waiting.append(pairs)
        if sum(len(some.rows) for some in self.waiting) > self.frame.waiting:
            self.settle_()

    def settle_(self) -> None:
        """Measure the pairs that wait, in float64, and keep the best of them and what is known."""
        if not self.waiting:
            return
        columns = zip(*(pairs.columns for pairs in self.waiting), strict=True)
        rows, found, values, slack = (np.concatenate(column) for column in columns)
        self.waiting.clear()
        left = values <= self.bounds[rows]
        rows, found, values, slack = rows[left], found[left], values[left], slack[left]
        squares = self.frame.squares(self.queries[rows], found)
        allowed = self.rough.slack[rows] + 2 * slack + TINY
        self._check(values + self.rough.norms[rows] - squares, allowed)
        touched, count = np.unique(rows), self.indices.shape[1]
        all_rows = np.concatenate([np.repeat(touched, count), rows])
        all_found = np.concatenate([self.indices[touched].ravel(), found])
        all_squares = np.concatenate([self.squares[touched].ravel(), squares])
        best = _least(all_rows, all_squares, all_found, count)
        self.indices[touched] = all_found[best]
        self.squares[touched] = all_squares[best]
        furthest = self.squares[touched, -1]
        bounds = furthest - self.rough.norms[touched] + self.rough.slack[touched] + TINY
        # Nothing is nearer than a distance of zero, and later rows lose a tie.
        self.bounds[touched] = np.where(
            furthest > 0, np.minimum(self.bounds[touched], bounds), -np.inf
        )

    def _check(self, errors: Floats, allowed: Floats) -> None:
        """Raise `DeviceError` where a product was further off than it can be."""
        if (abs(errors) > allowed).any():
            raise DeviceError(
                "products on this device are less exact than their type of number allows",
                code="DEVICE_IMPRECISE",
                where=str(self.rough.points.device),
                hint="look for neighbours on the CPU: --device cpu",
            )


def _least(rows: Indices, values: Floats, ties: Floats | Indices, count: int) -> Indices:
    """Return, for every row that occurs, the positions of its `count` least values [r, count]."""
    order = np.lexsort((ties, values, rows))
    ordered = rows[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return order[rank < count].reshape(-1, count)


def _rounded_up(bounds: Floats) -> Tensor:
    return torch.from_numpy(np.nextafter(bounds.astype(np.float32), np.float32(np.inf)))
