"""Whether two tensors are the same, bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors have the same type, shape and bits; -0 is not 0."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, two = (value.detach().cpu().contiguous().reshape(-1) for value in (first, second))
    return torch.equal(one.view(torch.uint8), two.view(torch.uint8)) if one.numel() else True
