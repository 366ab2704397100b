"""Channel ids: an integer for every channel of every tensor dimension, and what ties them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Ids = NDArray[np.int64]
Axis = Ids | None
"""The ids of one tensor dimension; None where nothing on it can ever be cut (positions)."""
Axes = tuple[Axis, ...]

LARGEST_PRODUCT = 1 << 20
"""Most channels that a view may join several dimensions to; only the scores of boxes are more."""

FIXED = 0
"""The id of every channel that is fixed by construction."""


@dataclass(frozen=True)
class Freeze:
    """Ids that must stay, why, and the graph node (with its source line) that says so."""

    ids: Ids
    reason: str
    node: str
    where: str | None
    report: bool


@dataclass(frozen=True)
class Family:
    """A dimension of `whole` ids that a view reads as the product of several `axes`.

    The tensor stays rectangular only when all channels that share a coordinate go together.
    """

    whole: Ids
    axes: tuple[Ids, ...]
    where: str | None = None


class IdSpace:
    """Hands out ids and records what op rules say about them; nothing is resolved here."""

    def __init__(self) -> None:
        self.count = 1
        self.ties: list[tuple[Ids, Ids]] = []
        self.frozen: list[Freeze] = []
        self._held: dict[int, bool] = {}
        self.families: list[Family] = []
        self.inexact: list[Ids] = []
        self.parallel: list[Ids] = []
        self.contracted: list[Ids] = []
        self.made: list[Ids] = []
        self.node = ""
        self.where: str | None = None
        # Two views of the same channels have the same coordinates.
        self._products: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def fresh(self, size: int) -> Ids:
        """Return `size` new ids."""
        ids = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return ids

    def tie(self, first: Axis, second: Axis) -> Axis:
        """Make two dimensions of the same size share their fate; return one of them.

        Raises `ValueError` for sizes that differ.
        """
        if first is None or second is None:
            other = second if first is None else first
            if other is not None:
                self.freeze(other, "meets an input or positions, which stay", report=False)
            return other
        if first.size != second.size:
            raise ValueError(f"{first.size} channels meet {second.size}")
        if first is not second:
            self.ties.append((first, second))
        return first

    def freeze(self, axis: Axis, reason: str, *, report: bool = True) -> None:
        """Record that these channels must stay."""
        if axis is None or not axis.size:
            return
        held = self._held.get(id(axis))
        # The first reason counts; a table of scores is frozen by everything that sorts it.
        if not held and held != report:
            self._held[id(axis)] = report
            self.frozen.append(Freeze(axis, reason, self.node, self.where, report))

    def mark_inexact(self, axis: Axis) -> None:
        """Record that cutting these channels is legal, but is not the same as masking them."""
        if axis is not None:
            self.inexact.append(axis)

    def mark_parallel(self, axis: Axis) -> None:
        """Record that a matrix product works on each of these on its own, as on heads."""
        if axis is not None:
            self.parallel.append(axis)

    def mark_contracted(self, axis: Axis) -> None:
        """Record that a product of two activations sums over these channels."""
        if axis is not None:
            self.contracted.append(axis)

    def mark_made(self, axis: Axis) -> None:
        """Record that these are channels, also where no weight makes them."""
        if axis is not None:
            self.made.append(axis)

    def split(self, axis: Axis, sizes: Sequence[int]) -> Axes:
        """Read a dimension as a product of dimensions, as a view does."""
        if axis is None:
            return (None,) * len(sizes)
        table = axis.reshape(tuple(sizes))
        varying = [dim for dim in range(table.ndim) if _varies(table, dim)]
        if len(varying) <= 1:
            # A block of H*W equal ids per channel reads back as (C, H, W): only C carries ids.
            # A dimension that holds one id throughout keeps it on its largest axis.
            at = varying[0] if varying else int(np.argmax(table.shape))
            line = np.moveaxis(table, at, 0).reshape(table.shape[at], -1)[:, 0]
            if not varying and not line.any():
                return (None,) * len(sizes)
            return tuple(line if dim == at else None for dim in range(table.ndim))
        axes = self._axes_of(axis, table, varying)
        by_dim = dict(zip(varying, axes, strict=True))
        return tuple(by_dim.get(dim) for dim in range(table.ndim))

    def _axes_of(self, axis: Ids, table: Ids, varying: Sequence[int]) -> tuple[Ids, ...]:
        key = ("split", id(axis), table.shape)
        if key not in self._products:
            axes = tuple(self.fresh(table.shape[dim]) for dim in varying)
            self.families.append(
                Family(table.reshape(-1), _grid(axes, table.shape, varying), self.where)
            )
            self._products[key] = (axis, axes)
        return cast("tuple[Ids, ...]", self._products[key][-1])

    def merge(self, axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
        """Read several dimensions as one, as flatten does; an id is repeated where it must be."""
        carrying = [dim for dim, axis in enumerate(axes) if axis is not None]
        if not carrying:
            return None
        total = int(np.prod(sizes))
        if len(carrying) == 1:
            return _along(axes[carrying[0]], tuple(sizes), carrying[0]).reshape(-1)
        arrays = tuple(axis for axis in axes if axis is not None)
        if total > LARGEST_PRODUCT:
            for axis in arrays:
                self.freeze(axis, "is read as one of millions of scores")
            return None
        key = ("merge", *(id(axis) for axis in arrays), tuple(sizes))
        if key not in self._products:
            whole = self.fresh(total)
            self.families.append(Family(whole, _grid(arrays, tuple(sizes), carrying), self.where))
            self._products[key] = (arrays, whole)
        return cast("Ids", self._products[key][-1])


def _varies(table: Ids, dim: int) -> bool:
    if table.shape[dim] == 1:
        return False
    return bool((table != table.take([0], axis=dim)).any())


def _along(axis: Axis, shape: tuple[int, ...], dim: int) -> Ids:
    assert axis is not None
    view = axis.reshape([-1 if at == dim else 1 for at in range(len(shape))])
    return np.broadcast_to(view, shape)


def _grid(axes: Sequence[Ids], shape: tuple[int, ...], dims: Sequence[int]) -> tuple[Ids, ...]:
    return tuple(
        np.ascontiguousarray(_along(axis, shape, dim)).reshape(-1)
        for axis, dim in zip(axes, dims, strict=True)
    )
