"""Least squares by normal equations that grow with the layer and not with the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from prunecli.graph.operators import LINEAR, PLANE_CONVOLUTIONS

RIDGE = 1e-3
"""Weight of staying near the given solution, as a share of the mean square of the columns."""

CHUNK = 2**22
"""Numbers that an unfolded input, or the outputs wanted of it, may hold at once."""


WIDEST = 8192
"""Columns of the widest layer that is refitted: its equations take a GiB of memory."""

ENOUGH = 128
"""Rows per column that are enough: those of one image say much the same."""

SCARCE = 6
"""Rows per column that are looked at, however wide a layer is."""

WORK = 2**37
"""Rows times columns squared beyond which rows are drawn more sparsely, down to `SCARCE`."""

FEWEST = 16
"""Positions of a feature map that are looked at, however narrow the layer is."""

PRECISE = 128
"""Columns up to which products are taken in float64; of wider layers each in its own precision."""

TILE = 512
"""Columns of a tile of a product: of those above the diagonal none is computed."""


class Draw:
    """Which positions of a feature map become rows: all of a small one, some of a large one.

    Neighbours say almost the same, and other images say more (He et al. 2017 draw ten positions).
    """

    def __init__(self, images: int, *, enough: int | None = None, seed: int = 0) -> None:
        self.images = images
        self.enough = ENOUGH if enough is None else enough
        self.generator = torch.Generator().manual_seed(seed)

    def positions(self, count: int, *, columns: int) -> Tensor:
        """Return the positions of one batch among `count`, ascending; drawn anew at every call."""
        rows = max(min(self.enough * columns, WORK // columns**2), SCARCE * columns)
        return self.some(count, max(rows, FEWEST * self.images))

    def some(self, count: int, rows: int) -> Tensor:
        """Return the positions among `count` of one batch, so that all make about `rows` rows."""
        wanted = -(-rows // self.images)
        if wanted >= count:
            return torch.arange(count)
        return torch.randperm(count, generator=self.generator)[:wanted].sort().values


class Waiting:
    """Rows that wait until there are so many that their products are worth a pass over the sums.

    `take` is called with what was added, one tensor `[groups, rows, ...]` per column of `add`.
    """

    def __init__(self, rows: int, take: Callable[..., None]) -> None:
        self.rows = rows
        self.take = take
        self.parts: list[tuple[Tensor, ...]] = []

    def add(self, *part: Tensor) -> None:
        """Add rows `[groups, rows, ...]`."""
        self.parts.append(part)
        if sum(part[0].shape[1] for part in self.parts) >= self.rows:
            self.empty()

    def empty(self) -> None:
        """Hand out what waits."""
        parts, self.parts = self.parts, []
        if parts:
            self.take(*(torch.cat(column, 1) for column in zip(*parts, strict=True)))


class NormalEquations:
    """Sums of products in float64 for `groups` independent least-squares problems of one size.

    Each minimises `|x w + c - y|^2 + ridge |w - start|^2` over `w` `[columns, targets]` and `c`
    `[targets]` (`c = 0` without `intercept`), the ridge relative to the mean square of a column.
    `start` is `[groups, columns, targets]`.
    """

    def __init__(self, start: Tensor, *, intercept: bool) -> None:
        self.start = start.double()
        self.intercept = intercept
        groups, columns, targets = start.shape
        size = columns + intercept
        self.gram = self.start.new_zeros(groups, size, size)
        self.moment = self.start.new_zeros(groups, size, targets)
        self.waiting = Waiting(worth_a_pass(columns), self._take)

    def add(self, columns: Tensor, targets: Tensor) -> None:
        """Add rows: `columns` `[groups, rows, columns]` and `targets` `[groups, rows, targets]`."""
        self.waiting.add(columns, targets)

    def _take(self, columns: Tensor, targets: Tensor) -> None:
        count = columns.shape[2]
        add_rows_(self.gram, columns)
        left = _for_products(columns)
        self.moment[:, :count] += left.mT @ targets.to(left.dtype)
        if self.intercept:
            self.moment[:, count] += targets.double().sum(1)

    def solve(self, *, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """Return `w` `[groups, columns, targets]` and `c` `[groups, targets]`, both float64."""
        self.waiting.empty()
        count = self.start.shape[1]
        gram, moment = self.gram.clone(), self.moment.clone()
        diagonal = gram.diagonal(dim1=1, dim2=2)[:, :count]
        # A column that is zero on all images (a dead channel) keeps the weight that it has.
        weight = (ridge * diagonal.mean(1)).clamp_min(torch.finfo(torch.float64).tiny ** 0.5)
        diagonal += weight[:, None]
        moment[:, :count] += weight[:, None, None] * self.start
        found = torch.linalg.solve(gram, moment)
        if self.intercept:
            return found[:, :-1], found[:, -1]
        return found, torch.zeros_like(found[:, 0])


def worth_a_pass(columns: int) -> int:
    """Return the rows whose products take longer than to add them to all sums."""
    return max(columns // 2, 512) if columns > PRECISE else 0


def _for_products(columns: Tensor) -> Tensor:
    kind = torch.float64 if columns.shape[2] <= PRECISE else torch.float32
    return columns.to(torch.promote_types(columns.dtype, kind))


def add_rows_(gram: Tensor, columns: Tensor) -> None:
    """Add the products of `columns` `[groups, rows, columns]` to `gram`, in float64.

    Where `gram` has one column more, that stands for a column of ones. The products of wide layers
    are taken in the precision of `columns`; what float32 rounds off is far below `RIDGE`.
    """
    left = _for_products(columns)
    count = left.shape[2]
    for first in range(0, count, TILE):
        last = min(first + TILE, count)
        tile = left[..., first:last].mT @ left[..., :last]
        gram[:, first:last, :last] += tile
        gram[:, :first, first:last] += tile[..., :first].mT
    if gram.shape[1] > count:
        sums = (left.new_ones(1, left.shape[1]) @ left)[:, 0]
        gram[:, count, :count] += sums
        gram[:, :count, count] += sums
        gram[:, count, count] += left.shape[1]


def rows_of_convolution(
    inputs: Tensor,
    outputs: Sequence[Tensor],
    weight: Tensor,
    arguments: Mapping[str, Any],
    draw: Draw,
) -> Iterator[tuple[Tensor, ...]]:
    """Yield a convolution as rows of a matrix product, some images at a time.

    `inputs` is `[n, in, ...]`, each of `outputs` `[n, out, ...]`; yielded are the columns
    `[groups, rows, columns]`, in the order of `weight[0]`, flattened, and the same rows of each of
    the outputs, `[groups, rows, out / groups]`. Positions are drawn where there are many.
    """
    groups = int(arguments["groups"])
    alone = inputs.dim() == 3
    # A sequence is an image of height 1: neither padded nor moved along that side.
    stride, padding, dilation, kernel = (
        (neutral, *value) if alone else tuple(value)
        for value, neutral in (
            (arguments["stride"], 1),
            (arguments["padding"], 0),
            (arguments["dilation"], 1),
            (weight.shape[2:], 1),
        )
    )
    images = inputs[:, :, None] if alone else inputs
    high, wide = (size + 2 * pad for size, pad in zip(images.shape[2:], padding, strict=True))
    # The tops of all windows, and the way from there to each number that a window reads.
    tops = (
        torch.arange(0, high - dilation[0] * (kernel[0] - 1), stride[0]),
        torch.arange(0, wide - dilation[1] * (kernel[1] - 1), stride[1]),
    )
    ways = (torch.arange(kernel[0]) * dilation[0], torch.arange(kernel[1]) * dilation[1])
    windows, steps = ((down[:, None] * wide + right).flatten() for down, right in (tops, ways))
    windows, steps = windows.to(inputs.device), steps.to(inputs.device)
    at_once = max(1, CHUNK // (images[0].numel() * steps.numel()))
    for first in range(0, len(images), at_once):
        some = slice(first, first + at_once)
        drawn = draw.positions(windows.numel(), columns=weight[0].numel()).to(inputs.device)
        read = (steps[:, None] + windows[drawn]).flatten()
        padded = functional.pad(images[some], (padding[1], padding[1], padding[0], padding[0]))
        unfolded = padded.flatten(2)[:, :, read].reshape(len(padded), -1, drawn.numel())
        made = (values[some].flatten(2)[:, :, drawn] for values in outputs)
        yield tuple(_by_group(values, groups) for values in (unfolded, *made))


def rows_of_product(
    inputs: Tensor, outputs: Sequence[Tensor], weight: Tensor, _: object, draw: Draw
) -> Iterator[tuple[Tensor, ...]]:
    """Yield a linear layer as rows of a matrix product: `[1, rows, in]`, and of each output."""
    whole = [
        values.flatten(1, -2) if values.dim() > 2 else values[:, None]
        for values in (inputs, *outputs)
    ]
    drawn = draw.positions(whole[0].shape[1], columns=weight.shape[1]).to(inputs.device)
    yield tuple(values[:, drawn].flatten(0, 1)[None] for values in whole)


def _by_group(values: Tensor, groups: int) -> Tensor:
    """Return `[n, groups * columns, positions]` as `[groups, n * positions, columns]`."""
    count, width, positions = values.shape
    split = values.reshape(count, groups, width // groups, positions)
    return split.permute(1, 0, 3, 2).reshape(groups, count * positions, width // groups)


Rows = Callable[
    [Tensor, Sequence[Tensor], Tensor, Mapping[str, Any], Draw], Iterator[tuple[Tensor, ...]]
]

ROWS: dict[str, Rows] = {
    **dict.fromkeys(PLANE_CONVOLUTIONS, rows_of_convolution),
    **dict.fromkeys(LINEAR, rows_of_product),
}
"""The operators that can be written as rows."""
