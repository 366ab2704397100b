"""Backward elimination: which blocks of columns a least-squares problem misses least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from prunecli.least_squares.equations import RIDGE

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 64
"""Of more blocks than this, a share of one in so many goes in one step."""

SHRINK = 0.85
"""Share of columns at which what is left is copied into a smaller matrix."""


@dataclass(frozen=True)
class Blocks:
    """The columns of `count` blocks, listed by the group of the problem that they stand in.

    A block of a grouped layer may stand in one group or in several: entry `i` says that block
    `block[i]` has `columns[i]` `[size]` in group `group[i]`, where `real[i]` holds. That a
    depthwise layer has one entry per channel keeps it as small as it is.
    """

    count: int
    block: Tensor
    group: Tensor
    columns: Tensor
    real: Tensor

    def take(self, which: Tensor) -> Blocks:
        """Return some of the blocks, numbered in the order in which they are asked for."""
        number = torch.full((self.count,), -1)
        number[which] = torch.arange(len(which))
        found = number[self.block]
        some = found >= 0
        return Blocks(
            len(which), found[some], self.group[some], self.columns[some], self.real[some]
        )


class Missed(Protocol):
    """What can say what blocks of columns are worth, and lose them."""

    def errors(self, blocks: Blocks) -> Tensor:
        """Return how much each block alone would add to the error, `[blocks]`."""

    def remove_(self, blocks: Blocks) -> Tensor:
        """Take blocks out together; return the groups whose other blocks now count otherwise."""


class Elimination:
    """Solved least-squares problems that lose columns, with what is left refitted every time.

    Without the columns `B`, `tr(M (w - w0)' (G + ridge) (w - w0))` is at least
    `tr(M w_B' (inverse_BB)^-1 w_B)`, where `inverse` is that of `G + ridge`: optimal brain surgeon
    (Hassibi, Stork 1993, eq. 5) for blocks, and for many outputs `w` under a metric `M`. `gram` is
    `[groups, columns, columns]`, with the intercept as last column where there is one, `weight`
    `[groups, columns, targets]` (without it) and `metric` `[groups, targets, targets]`.

    Of `w` only the products `w M w'` matter, so it is kept as a factor of them that is no wider
    than columns or targets. The matrices shrink with the columns that are left.
    """

    def __init__(
        self, gram: Tensor, weight: Tensor, metric: Tensor, *, ridge: float = RIDGE
    ) -> None:
        count = weight.shape[1]
        held = gram.to(torch.float64, copy=True)
        diagonal = held.diagonal(dim1=1, dim2=2)[:, :count]
        # A column that is always zero (a dead channel) costs nothing, and must not be singular.
        diagonal += (ridge * diagonal.mean(1, keepdim=True)).clamp_min(1e-30)
        self.inverse = _inverse(held)
        factor = _factor(weight.double(), metric.double())
        self.weight = factor.new_zeros(*gram.shape[:2], factor.shape[2])
        self.weight[:, :count] = factor
        self.gone = torch.zeros(gram.shape[:2], dtype=torch.bool)
        # Where each column stands in `inverse` and `weight`, once these have shrunk.
        self.place = torch.arange(gram.shape[1]).repeat(len(gram), 1)

    def errors(self, blocks: Blocks) -> Tensor:
        """Return how much each block alone would add to the error, `[blocks]`."""
        group, real, at = self._found(blocks)
        square = self.inverse[group[..., None], at[:, :, None], at[:, None, :]]
        square *= real[:, :, None] & real[:, None, :]
        # Where an entry does not count, the inverse is that of a column beside all others.
        square += torch.diag_embed((~real).double())
        own = self.weight[group, at]
        own *= real[..., None]
        # tr(own' square^-1 own), with products that are as small as a block.
        solved = torch.linalg.solve(square, own @ own.mT)
        found: Tensor = solved.diagonal(dim1=1, dim2=2).sum(1)
        return found.new_zeros(blocks.count).index_add(0, blocks.block, found)

    def remove_(self, blocks: Blocks) -> Tensor:
        """Take blocks out together, and refit what is left; return the groups that lost some."""
        group, real, at = self._found(blocks)
        lost = torch.zeros(self.inverse.shape[:2], dtype=torch.bool)
        lost[group.expand_as(at)[real], at[real]] = True
        counts = lost.sum(1)
        some = counts.nonzero().flatten()
        if not len(some):
            return some
        # `[groups that lose, removed]`: a group that loses fewer is filled up with kept columns.
        which = torch.argsort(~lost[some], stable=True)[:, : int(counts.max())]
        heard = torch.arange(which.shape[1]) < counts[some, None]
        self._downdate_(some, which, heard)
        self.gone[group.expand_as(at)[real], blocks.columns[real]] = True
        self._shrink_()
        return some

    def _found(self, blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
        """Return the groups `[entries, 1]`, which columns count, and where these stand."""
        group = blocks.group[:, None]
        real = blocks.real & ~self.gone[group, blocks.columns]
        return group, real, self.place[group, blocks.columns]

    def _downdate_(self, some: Tensor, which: Tensor, heard: Tensor) -> None:
        """Take columns `which` `[groups, removed]` out of some groups, where they are `heard`."""
        group = some[:, None]
        # `[groups, removed, columns]`: the inverse is symmetric.
        rows = self.inverse[group, which]
        rows *= heard[..., None]
        square = rows.gather(2, which[:, None].expand(-1, which.shape[1], -1))
        square *= heard[:, None]
        square += torch.diag_embed((~heard).double())
        own = self.weight[group, which] * heard[..., None]
        solved = torch.linalg.inv(square) @ torch.cat([rows, own], 2)
        inner, outer = solved.split([rows.shape[2], own.shape[2]], 2)
        if len(some) == len(self.inverse):
            self.inverse.baddbmm_(rows.mT, inner, alpha=-1)
            self.weight.baddbmm_(rows.mT, outer, alpha=-1)
        else:
            self.inverse[some] -= rows.mT @ inner
            self.weight[some] -= rows.mT @ outer

    def _shrink_(self) -> None:
        """Copy what is left into smaller matrices once that pays."""
        size, left = self.inverse.shape[1], ~self.gone
        most = int(left.sum(1).max())
        if most > SHRINK * size:
            return
        held = torch.zeros(self.inverse.shape[:2], dtype=torch.bool)
        held[left.nonzero()[:, 0], self.place[left]] = True
        kept = torch.argsort(~held, dim=1, stable=True)[:, :most]
        rows = self.inverse.gather(1, kept[:, :, None].expand(-1, -1, size))
        self.inverse = rows.gather(2, kept[:, None].expand(-1, most, -1))
        self.weight = self.weight.gather(1, kept[:, :, None].expand(-1, -1, self.weight.shape[2]))
        moved = torch.zeros(held.shape, dtype=torch.int64)
        moved.scatter_(1, kept, torch.arange(most).expand_as(kept))
        self.place = moved.gather(1, self.place)


def _inverse(matrix: Tensor) -> Tensor:
    """Return the inverse of symmetric matrices, by Cholesky wherever rounding leaves it one."""
    root, failed = torch.linalg.cholesky_ex(matrix)
    return torch.linalg.inv(matrix) if bool(failed.any()) else torch.cholesky_inverse(root)


def _factor(weight: Tensor, metric: Tensor) -> Tensor:
    """Return `f` with `f f' = weight metric weight'`, as narrow as either allows."""
    if weight.shape[1] < weight.shape[2]:
        return _root(weight @ metric @ weight.mT)
    return weight @ _root(metric)


def _root(metric: Tensor) -> Tensor:
    """Return `r` with `metric = r r'`, as narrow as the metric allows."""
    values, vectors = torch.linalg.eigh(metric)
    heard = (values > 1e-10 * values[:, -1:]).any(0)
    root: Tensor = vectors[..., heard] * values[:, None, heard].clamp_min(0).sqrt()
    return root


class Unrefitted:
    """A problem where nothing is refitted: every column costs what it costs, whatever has gone.

    `costs` is `[groups, columns]`.
    """

    def __init__(self, costs: Tensor) -> None:
        self.costs = costs

    def errors(self, blocks: Blocks) -> Tensor:
        """Return how much each block alone would add to the error, `[blocks]`."""
        each = (self.costs[blocks.group[:, None], blocks.columns] * blocks.real).sum(1)
        return each.new_zeros(blocks.count).index_add(0, blocks.block, each)

    def remove_(self, blocks: Blocks) -> Tensor:
        """Do nothing: no other block is missed more for it."""
        return blocks.group[:0]


def eliminate(problems: Sequence[tuple[Missed, Blocks]]) -> Tensor:
    """Return what every block adds to the error of all problems together when it goes, `[blocks]`.

    The block that is missed least goes first, and the others are refitted; of many blocks some go
    in one step. The numbers grow in the order of removal, whatever the errors do.
    """
    count = problems[0][1].count
    left = torch.arange(count)
    result = torch.zeros(count, dtype=torch.float64)
    known = [one.errors(blocks) for one, blocks in problems]
    last = 0.0
    while len(left):
        errors = torch.stack(known).sum(0)[left]
        order = torch.argsort(errors, stable=True)
        first = order[: max(1, len(left) // AT_ONCE)]
        for at in first.tolist():
            last = max(float(errors[at]), _above(last))
            result[left[at]] = last
        gone, left = left[first], left[torch.sort(order[len(first) :]).values]
        for (one, blocks), own in zip(problems, known, strict=True):
            changed = one.remove_(blocks.take(gone))
            # Of a depthwise layer every channel has a group of its own: no other one changes.
            again = left[torch.isin(left, blocks.block[torch.isin(blocks.group, changed)])]
            if len(again):
                own[again] = one.errors(blocks.take(again))
    return result


def _above(value: float) -> float:
    """Return a number just above, so that what goes later counts for more."""
    return value * (1 + 1e-12) + 1e-300
