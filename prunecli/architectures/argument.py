"""One argument of a network: a tensor of any shape, or a plain value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_VALUES = 2**26
"""Values of one image at most, as a file may say: 4 channels of 4096 x 4096 pixels."""

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class Argument:
    """One argument of a forward: a tensor, or a plain value that is the same in every call.

    A tensor has a `shape`, without the batch that is in front of it where it is `batched`; a plain
    value has none. Random integers are drawn from the first to the second of `values`. The `name`
    is that of the forward's parameter; empty stands for the one at its position.
    """

    name: str
    shape: tuple[int, ...] | None = None
    dtype: str = "float32"
    batched: bool = True
    values: tuple[int, int] = (0, 1)
    value: bool | int | float | str | None = None

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor."""
        return self.shape is not None

    @property
    def described(self) -> str:
        """What people read of it.

        >>> Argument("ids", (77,), "int64").described
        'ids 77 (int64)'
        """
        if self.shape is None:
            return f"{self.name}={self.value}"
        kind = "" if self.dtype == "float32" else f" ({self.dtype})"
        return f"{self.name} {shape_text(self.shape)}{kind}".strip()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        if self.shape is None:
            return {"name": self.name, "value": self.value}
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "batched": self.batched,
            "values": list(self.values),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Argument:
        """Read what `to_json` wrote; raise `ValueError` for a tensor that cannot be."""
        if "shape" not in data:
            value = data["value"]
            if not isinstance(value, bool | int | float | str | None):
                raise ValueError(f"{value!r} is no plain value")
            return cls(str(data["name"]), value=value)
        low, high = (int(value) for value in data["values"])
        found = cls(
            name=str(data["name"]),
            shape=tuple(int(size) for size in data["shape"]),
            dtype=str(data["dtype"]),
            batched=bool(data["batched"]),
            values=(low, high),
        )
        check_shape(found.shape or ())
        if found.dtype not in (*FLOATS, *INTEGERS):
            raise ValueError(f"{found.dtype} is no type of an input")
        if low > high:
            raise ValueError(f"there is no value from {low} to {high}")
        return found


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape as people do.

    >>> shape_text((3, 224, 224)), shape_text(())
    ('3x224x224', 'number')
    """
    return "x".join(map(str, shape)) or "number"


def check_shape(shape: Sequence[int]) -> None:
    """Raise `ValueError` for a shape that no input can have."""
    if min(shape, default=1) < 1 or math.prod(shape) > MOST_VALUES:
        raise ValueError(f"inputs of {tuple(shape)} are not from 1 to {MOST_VALUES:,} values")
