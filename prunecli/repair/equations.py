"""Least squares by normal equations that grow with the layer and not with the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

RIDGE = 1e-3
"""Weight of staying near the given solution, as a share of the mean square of the columns."""

CHUNK = 2**22
"""Numbers that an unfolded input, or the outputs wanted of it, may hold at once."""


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

    def add(self, columns: Tensor, targets: Tensor) -> None:
        """Add rows: `columns` `[groups, rows, columns]` and `targets` `[groups, rows, targets]`."""
        left, right = columns.double(), targets.double()
        count = left.shape[2]
        self.gram[:, :count, :count] += left.mT @ left
        self.moment[:, :count] += left.mT @ right
        if self.intercept:
            # As a last column of ones, without a copy of the others.
            sums = left.sum(1)
            self.gram[:, count, :count] += sums
            self.gram[:, :count, count] += sums
            self.gram[:, count, count] += left.shape[1]
            self.moment[:, count] += right.sum(1)

    def solve(self, *, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """Return `w` `[groups, columns, targets]` and `c` `[groups, targets]`, both float64."""
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


def rows_of_convolution(
    inputs: Tensor, targets: Tensor, weight: Tensor, arguments: Mapping[str, Any]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a convolution as rows of a matrix product, some images at a time.

    `inputs` is `[n, in, ...]`, `targets` `[n, out, ...]`; the pairs are `[groups, rows, columns]`
    and `[groups, rows, targets]`, the columns in the order of `weight[0]`, flattened.
    """
    groups = int(arguments["groups"])
    sequence = inputs.dim() == 3
    # A sequence is an image of height 1: neither padded nor moved along that side.
    stride, padding, dilation, kernel = (
        (alone, *value) if sequence else tuple(value)
        for value, alone in (
            (arguments["stride"], 1),
            (arguments["padding"], 0),
            (arguments["dilation"], 1),
            (weight.shape[2:], 1),
        )
    )
    at_once = max(1, CHUNK // (inputs[0].numel() * kernel[0] * kernel[1]))
    chunks = (torch.split(values, at_once) for values in (inputs, targets))
    for some, wanted in zip(*chunks, strict=True):
        images = some[:, :, None] if sequence else some
        unfolded = functional.unfold(images, kernel, dilation, padding, stride)
        yield _by_group(unfolded, groups), _by_group(wanted.flatten(2), groups)


def rows_of_product(inputs: Tensor, targets: Tensor, *_: object) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a linear layer as rows of a matrix product: `[1, rows, in]` and `[1, rows, out]`."""
    yield inputs.flatten(0, -2)[None], targets.flatten(0, -2)[None]


def _by_group(values: Tensor, groups: int) -> Tensor:
    """Return `[n, groups * columns, positions]` as `[groups, n * positions, columns]`."""
    count, width, positions = values.shape
    split = values.reshape(count, groups, width // groups, positions)
    return split.permute(1, 0, 3, 2).reshape(groups, count * positions, width // groups)
