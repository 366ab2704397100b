"""Rough products of rows of a table, and how far off each of them can be."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

ROWS = 4096
"""Most rows of the table that are looked at together."""

TILE = 512
"""Most queries that are compared with those rows together."""

GRID = 255
"""Steps of the grid that centres lie on: pixels of 8 bits then are whole numbers once centred,
which bfloat16 holds without loss."""

CACHED = 2**20
"""Bytes of rows that are worked on at a time where every step would else go through the memory."""

LARGE = 2**36
"""Multiplications from which on it is worth finding out which kind of them is faster."""

_UNITS = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}  # unit roundoff
_SINGLE = _UNITS[torch.float32]


def check_table(features: NDArray[np.generic]) -> None:
    """Raise `InputError` (`BAD_FEATURES`) unless `features` is a non-empty [N, d] of numbers."""
    if features.ndim != 2 or not features.size:
        raise InputError(
            f"features must be a table [samples, features], not of shape {features.shape}",
            code="BAD_FEATURES",
            hint="flatten images to one row each, as embed_pixels does",
        )
    if features.dtype.kind not in "fiub":
        raise InputError(f"features are no real numbers ({features.dtype})", code="BAD_FEATURES")


def span(features: NDArray[np.generic]) -> tuple[float, float]:
    """Return the least and the largest value of a table.

    Raises `InputError` (`BAD_FEATURES`) where one is not finite.
    """
    check_table(features)
    # Both of a part while it is in the cache: the table itself is read from memory once.
    parts = [features[part] for part in blocks(len(features), cached_rows(features.shape[1]))]
    low = float(np.min([part.min() for part in parts]))
    high = float(np.max([part.max() for part in parts]))
    if not np.isfinite(high - low):
        raise InputError(
            "features hold NaN, infinities, or values too large to subtract",
            code="BAD_FEATURES",
            hint="check the embedding that made them",
        )
    return low, high


def cached_rows(width: int) -> int:
    """Return how many rows of float64 are worked on at a time."""
    return max(1, CACHED // (8 * width))


def blocks(count: int, rows: int) -> Iterator[slice]:
    """Return the slices of at most `rows` that make up `count`."""
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Let no product be rounded more than its type says, whatever the caller has set for training.

    TensorFloat-32 and its like would break the bound that `Rough` states.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True, eq=False)
class Frame:
    """A table with a centre and a scale, so that products of its rows lose little.

    `rows` of it are compared with a `tile` of queries at a time, `few` rows fit a cache, and
    `waiting` pairs at most are kept to be measured later.
    """

    features: NDArray[np.generic]
    centre: NDArray[np.floating]
    scale: float
    rows: int
    tile: int
    few: int
    waiting: int

    @classmethod
    def of(cls, features: NDArray[np.generic], workspace: int) -> Frame:
        """Return the frame of a table; temporary arrays take `workspace` bytes each."""
        low, high = span(features)
        width = features.shape[1]
        step = (high - low) / GRID or 1.0
        scale = float(np.clip(step, 1e-290, 1e290))
        # Any centre will do: that of some rows is as good as that of all, and sooner found.
        mean = features[:: -(-len(features) // ROWS)].mean(axis=0, dtype=np.float64)
        # In float32 only where it can hold the scale and its reciprocal.
        small = features.dtype == np.float32 and 1e-30 < scale < 1e30
        kind = np.float32 if small else np.float64
        rows = int(np.clip(workspace // (8 * width), 1, ROWS))
        return cls(
            features,
            centre=(low + np.round((mean - low) / step) * step).astype(kind),
            scale=scale,
            rows=rows,
            # Where all rows are alike every pair passes, and takes some 64 bytes on its way.
            tile=int(np.clip(workspace // (32 * rows), 1, TILE)),
            few=min(cached_rows(width), max(1, workspace // (8 * width))),
            waiting=workspace // 64,
        )

    def centred(self, rows: Indices | slice) -> Tensor:
        """Return rows centred and scaled as float32 [n, d].

        Whatever the centre, a difference and a product lose one unit of roundoff each.
        """
        points = np.subtract(self.features[rows], self.centre, dtype=self.centre.dtype)
        points *= self.centre.dtype.type(1 / self.scale)
        return torch.from_numpy(points.astype(np.float32, copy=False))

    def squares(self, left: Indices, right: Indices) -> Floats:
        """Return the squared distances of pairs of rows [p] in float64."""
        result = np.empty(len(left), dtype=np.float64)
        for part in blocks(len(left), self.few):
            difference = self.features[left[part]].astype(np.float64)
            difference -= self.features[right[part]].astype(np.float64)
            difference /= self.scale
            result[part] = np.einsum("pd,pd->p", difference, difference)
        return result


def _within(rows: Indices | slice, part: slice) -> Indices | slice:
    if isinstance(rows, slice):
        return slice(rows.start + part.start, rows.start + part.stop)
    return rows[part]


@dataclass(frozen=True, eq=False)
class Rough:
    """Rows as a kind of float [n, d] on a device, their squared norms and their `slack` [n].

    For rows q and x, -2 q.x as computed differs from the true value by at most the sum of their
    slacks and `TINY`. In it are the usual bound on a sum of products in any order (Higham 2002,
    section 3.1), the conversions around it, and for bfloat16 what rounding took from these very
    rows (by Cauchy and Schwarz) and takes from the result.
    """

    points: Tensor
    norms: Floats
    slack: Floats
    loss: float

    @classmethod
    def of(
        cls,
        frame: Frame,
        rows: Indices | slice,
        *,
        kind: torch.dtype,
        device: torch.device,
        loss: float | None = None,
    ) -> Rough:
        """Centre and round rows; `loss` is the share that rounding takes, about (None: of these).

        What is compared with each other has the same `loss`.
        """
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        points = torch.empty((count, frame.features.shape[1]), dtype=kind)
        norms, lost = np.empty(count), np.empty(count)
        for part in blocks(count, frame.few):
            centred = frame.centred(_within(rows, part))
            points[part] = centred
            norms[part] = torch.linalg.vector_norm(centred, dim=1).numpy()
            lost[part] = torch.linalg.vector_norm(centred.sub_(points[part]), dim=1).numpy()
        if loss is None:
            loss = max(float(lost.sum()) / max(float(norms.sum()), TINY), 2.0**-16)
        terms = (points.shape[1] + 1) * _SINGLE
        gamma = terms / (1 - terms) if terms < 0.5 else 1.0
        slack = (4 * gamma + 32 * _SINGLE) * norms**2
        if kind != torch.float32:
            # 2 |q| lost(x) <= loss |q|^2 + lost(x)^2 / loss, whatever `loss` is; so with q and x
            # changed over. The result is rounded by no more than a unit.
            slack += 1.01 * (lost**2 / loss + (loss + _UNITS[kind]) * norms**2)
        return cls(points.to(device), norms**2, slack, loss)

    def times(self, other: Rough, part: slice, scratch: Tensor) -> Tensor:
        """Return |x|^2 - slack(x) - 2 q.x for `part` of these rows q and all x of another [p, n].

        The result is float32 in `scratch`, and is overwritten by the next.
        """
        points = self.points[part]
        lowered = torch.from_numpy((other.norms - other.slack).astype(np.float32))
        lowered = lowered.to(points.device)
        result = scratch[: len(points) * len(lowered)].view(len(points), -1)
        if points.dtype == torch.float32:
            return torch.addmm(lowered, points, other.points.T, alpha=-2, out=result)
        products = scratch[len(scratch) * 2 // 3 :].view(torch.bfloat16)[: result.numel()]
        products = torch.mm(points, other.points.T, out=products.view_as(result))
        return torch.add(lowered, products, alpha=-2, out=result)


def scratch_for(queries: int, rows: int, device: torch.device) -> Tensor:
    """Return room for products of so many queries and rows, in float32 and in 16 bits beside it.

    One room for all of them: the pages of a new array take as long to get as a product.
    """
    return torch.empty(queries * rows // 2 * 3 + 3, dtype=torch.float32, device=device)


TINY = 1e-30
"""What products of numbers below the range of float32 lose."""


def faster_kind(frame: Frame, queries: int, device: torch.device) -> torch.dtype:
    """Return the kind of float whose products take less time here, float32 unless there are many.

    What is found is the same with both. Processors without bfloat16 of their own are slow in it.
    """
    count, width = frame.features.shape
    if device.type != "cpu" or queries * count * width < LARGE:
        return torch.float32
    some = slice(0, min(1024, count))
    scratch = scratch_for(128, some.stop, device)
    seconds = {}
    for kind in _UNITS:
        rough = Rough.of(frame, some, kind=kind, device=device)
        turns = []
        for _ in range(3):
            start = time.perf_counter()
            rough.times(rough, slice(0, 128), scratch)
            turns.append(time.perf_counter() - start)
        seconds[kind] = min(turns)
    return min(seconds, key=seconds.__getitem__)
