"""Backward elimination: which blocks of columns a least-squares problem misses least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.least_squares.equations import RIDGE

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 64
"""Of more blocks than this, a share of one in so many goes in one step."""


@dataclass(frozen=True)
class Blocks:
    """Columns by block: `columns` `[groups, blocks, size]`, and which of those entries are real."""

    columns: Tensor
    real: Tensor

    def take(self, which: Tensor) -> Blocks:
        """Return some of the blocks."""
        return Blocks(self.columns[:, which], self.real[:, which])

    def joined(self) -> Blocks:
        """Return all columns as one block."""
        return Blocks(self.columns.flatten(1)[:, None], self.real.flatten(1)[:, None])


class Elimination:
    """Solved least-squares problems that lose columns, with what is left refitted every time.

    Without the columns `B`, `tr(M (w - w0)' (G + ridge) (w - w0))` is at least
    `tr(M w_B' (inverse_BB)^-1 w_B)`, where `inverse` is that of `G + ridge`: optimal brain surgeon
    (Hassibi, Stork 1993, eq. 5) for blocks, and for many outputs `w` under a metric `M`. `gram` is
    `[groups, columns, columns]`, with the intercept as last column where there is one, `weight`
    `[groups, columns, targets]` (without it) and `metric` `[groups, targets, targets]`.
    """

    def __init__(
        self, gram: Tensor, weight: Tensor, metric: Tensor, *, ridge: float = RIDGE
    ) -> None:
        count = weight.shape[1]
        held = gram.double().clone()
        diagonal = held.diagonal(dim1=1, dim2=2)[:, :count]
        # A column that is always zero (a dead channel) costs nothing, and must not be singular.
        diagonal += (ridge * diagonal.mean(1, keepdim=True)).clamp_min(1e-30)
        self.inverse = torch.linalg.inv(held)
        self.weight = held.new_zeros(*held.shape[:2], weight.shape[2])
        self.weight[:, :count] = weight.double()
        self.weight = self.weight @ _root(metric.double())
        self.gone = held.new_zeros(held.shape[:2], dtype=torch.bool)

    def errors(self, blocks: Blocks) -> Tensor:
        """Return how much each block alone would add to the error, `[blocks]`."""
        _, square, own = self._parts(blocks)
        errors: Tensor = (own * torch.linalg.solve(square, own)).sum((0, 2, 3))
        return errors

    def remove_(self, blocks: Blocks) -> None:
        """Take blocks out together, and refit what is left."""
        whole = blocks.joined()
        real, square, own = (part[:, 0] for part in self._parts(whole))
        at = whole.columns[:, 0]
        group = torch.arange(len(at), device=at.device)[:, None]
        # `[groups, removed, columns]`: the inverse is symmetric.
        rows = self.inverse[group, at] * real[..., None]
        solved = torch.linalg.solve(square, torch.cat([rows, own], 2))
        count = rows.shape[2]
        self.inverse -= rows.mT @ solved[..., :count]
        self.weight -= rows.mT @ solved[..., count:]
        self.gone[group.expand_as(at)[real], at[real]] = True

    def _parts(self, blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
        """Return which entries count, the blocks of the inverse, and the weights of the blocks.

        Where an entry does not count, the inverse is that of a column beside all others.
        """
        at = blocks.columns
        group = torch.arange(len(at), device=at.device)[:, None, None]
        real = blocks.real & ~self.gone[group, at]
        square = self.inverse[group[..., None], at[..., :, None], at[..., None, :]]
        square = square * (real[..., :, None] & real[..., None, :])
        square += torch.diag_embed((~real).double())
        return real, square, self.weight[group, at] * real[..., None]


def _root(metric: Tensor) -> Tensor:
    """Return `r` with `metric = r r'`, as narrow as the metric allows."""
    values, vectors = torch.linalg.eigh(metric)
    heard = (values > 1e-10 * values[:, -1:]).any(0)
    root: Tensor = vectors[..., heard] * values[:, None, heard].clamp_min(0).sqrt()
    return root


def eliminate(problems: Sequence[tuple[Elimination, Blocks]]) -> Tensor:
    """Return what every block adds to the error of all problems together when it goes, `[blocks]`.

    The block that is missed least goes first, and the others are refitted; of many blocks some go
    in one step. The numbers grow in the order of removal, whatever the errors do.
    """
    count = problems[0][1].columns.shape[1]
    left = torch.arange(count)
    result = torch.zeros(count, dtype=torch.float64)
    last = 0.0
    while len(left):
        errors = torch.stack([one.errors(blocks.take(left)) for one, blocks in problems]).sum(0)
        order = torch.argsort(errors, stable=True)
        first = order[: max(1, len(left) // AT_ONCE)]
        for at in first.tolist():
            last = max(float(errors[at]), _above(last))
            result[left[at]] = last
        for one, blocks in problems:
            one.remove_(blocks.take(left[first]))
        left = left[torch.sort(order[len(first) :]).values]
    return result


def _above(value: float) -> float:
    """Return a number just above, so that what goes later counts for more."""
    return value * (1 + 1e-12) + 1e-300
