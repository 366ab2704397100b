"""How much room tensors take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the values of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
