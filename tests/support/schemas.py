"""All operators of torch's own library that are functions of tensors, and arguments to try them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = (3, 4)

KINDS = ("float", "int", "bool")

# These take any shape for granted and read outside of their tensors.
UNSAFE = (
    "native_", "nested", "mkldnn", "miopen", "cudnn", "mps", "fbgemm", "quantized", "sparse",
    "_backward",
)  # fmt: skip


def functions_of_tensors() -> Iterator[Any]:
    """Yield every overload of a public operator that reads a tensor and writes into none."""
    schemas = torch._C._jit_get_all_schemas()
    names = {schema.name.partition("::")[2] for schema in schemas if schema.name[:6] == "aten::"}
    for name in sorted(names):
        packet = getattr(torch.ops.aten, name, None)
        public = any(hasattr(place, name) for place in (torch, Tensor, functional))
        named = public or name.startswith(("special_", "new_"))
        private = name.startswith("_") and not name.startswith("__")
        if packet is None or private or not named or any(part in name for part in UNSAFE):
            continue
        for overload in packet.overloads():
            target = getattr(packet, overload)
            kinds = [str(argument.type) for argument in target._schema.arguments]
            if "Tensor" in kinds and not target._schema.is_mutable and "out" not in overload:
                yield target


def arguments_for(target: Any, kind: str, generator: torch.Generator) -> dict[str, Any] | None:
    """Return arguments of a shape that most operators take; None for kinds of no use here."""
    found: dict[str, Any] = {}
    for argument in target._schema.arguments:
        written = str(argument.type)
        if written == "Tensor":
            masks = argument.name in {"mask", "condition"}
            found[argument.name] = values("bool" if masks else kind, generator)
        elif argument.has_default_value():
            continue
        elif written in SIMPLE:
            found[argument.name] = SIMPLE[written]
        elif written.startswith("Optional"):
            found[argument.name] = None
        else:
            return None
    return found


SIMPLE = {
    "number": 1, "int": 1, "float": 0.5, "bool": False, "List[int]": list(SHAPE), "Device": "cpu",
}  # fmt: skip
"""What arguments that are no tensors are given, by their types."""


def values(kind: str, generator: torch.Generator, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Return a tensor of one kind, whose values no operator finds out of its range."""
    if kind == "float":
        return torch.rand(shape, generator=generator) * 0.8 + 0.1
    drawn = torch.randint(1, 5, shape, generator=generator)
    return drawn > 2 if kind == "bool" else drawn


def called(target: Any, arguments: dict[str, Any]) -> list[Tensor] | None:
    """Return the tensors that a call gives, always from the same random numbers; None if none."""
    torch.manual_seed(0)
    try:
        given = target(**arguments)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        return None
    listed = list(given) if isinstance(given, tuple | list) else [given]
    tensors = [value for value in listed if isinstance(value, Tensor)]
    return tensors if tensors and len(tensors) == len(listed) else None


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """Tell whether two calls gave the same, in types and shapes as well."""
    return len(first) == len(second) and all(
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.allclose(one.to(torch.complex128), other.to(torch.complex128), equal_nan=True)
        for one, other in zip(first, second, strict=True)
    )
