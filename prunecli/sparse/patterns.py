"""n:m sparsity: in every group of m weights along a layer's inputs, the n most salient stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from prunecli.options.granularity import Pattern


def reduction_matrix(weight: Tensor, input_dim: int = 1) -> Tensor:
    """Return a weight as `[rows, kernel positions * inputs]`, inputs last: what it is summed over.

    A linear layer's weight is returned as it is. For a convolution this is the matrix of the
    product over unfolded channels-last images; groups of its row are neighbouring input channels at
    one kernel position, which is what torch's semi-structured products and TensorRT ask for.
    """
    rows = weight.movedim(input_dim, -1)
    return rows.reshape(rows.shape[0], -1)


def fits(inputs: int, pattern: Pattern) -> bool:
    """Tell whether a layer's inputs divide into whole groups."""
    return inputs % pattern.of == 0


def pattern_mask(saliency: Tensor, pattern: Pattern, input_dim: int = 1) -> Tensor:
    """Return the mask that keeps the `n` most salient of every `m`; ties by lowest index.

    `saliency` has the shape of the weight; its size on `input_dim` must be a multiple of `m`.

    >>> from prunecli.options.granularity import Pattern
    >>> pattern_mask(torch.tensor([[3.0, 1.0, 2.0, 2.0]]), Pattern(2, 4)).tolist()
    [[True, False, True, False]]
    """
    last = saliency.movedim(input_dim, -1)
    groups = last.reshape(-1, pattern.of)
    order = groups.argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros(groups.shape, dtype=torch.bool, device=saliency.device)
    kept.scatter_(1, order[:, : pattern.keep], value=True)
    return kept.reshape(last.shape).movedim(-1, input_dim).contiguous()
