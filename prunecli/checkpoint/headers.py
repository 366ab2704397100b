"""Tensors of which only the type and the shape are known: to look at a file, no torch is needed."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Any

BITS = {
    "bool": 8, "uint8": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 64, "uint16": 16,
    "uint32": 32, "uint64": 64, "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64,
    "complex32": 32, "complex64": 64, "complex128": 128, "qint8": 8, "quint8": 8, "qint32": 32,
    "quint4x2": 8, "quint2x4": 8, "float8_e4m3fn": 8, "float8_e5m2": 8, "float8_e4m3fnuz": 8,
    "float8_e5m2fnuz": 8, "float8_e8m0fnu": 8, "float4_e2m1fn_x2": 8,
    "bits16": 16, "bcomplex32": 32,
}  # fmt: skip
"""Bits of one number of every type, by torch's name for it."""


@dataclass(frozen=True)
class TensorHeader:
    """A tensor in a file: its type by torch's name (`float32`), and its shape.

    `place` is where its numbers lie, one after the other, where they do: the name of a storage (or
    nothing in a file that has only one) and the bytes before them.
    """

    dtype: str
    shape: tuple[int, ...]
    place: tuple[str, int] | None = field(default=None, repr=False, compare=False)

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of its numbers; a type that is not known counts as one byte each."""
        return self.count * BITS.get(self.dtype, 8) // 8

    @property
    def is_floating(self) -> bool:
        """Tell whether it holds floating-point numbers."""
        return "float" in self.dtype


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of numbers that lie one after the other.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[at + 1 :]) for at in range(len(shape)))


def is_tensor(value: object) -> bool:
    """Tell whether a value is a tensor, or what is known of one.

    Nothing is a tensor of torch before torch is imported.
    """
    torch = sys.modules.get("torch")
    return isinstance(value, TensorHeader) or (
        torch is not None and isinstance(value, torch.Tensor)
    )


def counter_like(tensor: Any) -> Any:
    """Return a zero that counts batches: a tensor, or the header of one beside headers."""
    if isinstance(tensor, TensorHeader):
        return TensorHeader("int64", ())
    import torch

    return torch.tensor(0)
