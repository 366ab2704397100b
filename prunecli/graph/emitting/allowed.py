"""Which operators a program may name: pure functions of tensors and numbers, and no code."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch

from prunecli.errors import InputError
from prunecli.graph.operators import NAMESPACES, TORCHVISION, is_pointwise, operator_name
from prunecli.graph.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE_ARITHMETIC: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "getitem")
}
_NAMESPACES = tuple(f"{space}." for space in NAMESPACES)
_EXTRA_OPERATORS = {
    "sym_size", "arange", "eye", "full", "hann_window", "linspace", "logspace", "ones",
    "scalar_tensor", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip


def resolve(target: str) -> Any:
    """Return the operator that a program names; only pure ATen operators are allowed."""
    found = find(target)
    if found is None:
        raise InputError(
            f"this file names the operator {target!r}, which a model graph may not use",
            code="BAD_PROGRAM",
            hint="the file is damaged or was not written by prunecli",
        )
    return found


def find(target: str) -> Any | None:
    """Return the operator of a name, None where there is none or it may not be named."""
    parts = target.split(".")
    if len(parts) == 1:
        return SIZE_ARITHMETIC.get(target)
    if len(parts) != 3 or not target.startswith(_NAMESPACES):
        return None
    if parts[0] == TORCHVISION:
        import torchvision  # noqa: F401 - registers its operators
    packet = getattr(getattr(torch.ops, parts[0]), parts[1], None)
    found = getattr(packet, parts[2], None) if packet is not None else None
    if not isinstance(found, torch._ops.OpOverload):  # noqa: SLF001
        return None
    name = operator_name(found)
    allowed = (
        name in RULES
        or name in _EXTRA_OPERATORS
        or is_pointwise(found)
        or torch.Tag.core in found.tags
        or _is_function_of_tensors(found)
    )
    return found if allowed else None


def _is_function_of_tensors(found: Any) -> bool:
    """Tell whether a public operator reads tensors and numbers alone, and writes nothing."""
    schema = found._schema  # noqa: SLF001
    kinds = [str(argument.type) for argument in schema.arguments]
    public = not schema.name.rsplit("::", 1)[-1].startswith("_")
    reads = bool(kinds) and kinds[0] in {"Tensor", "List[Tensor]"}
    return public and reads and not schema.is_mutable and not any("str" in kind for kind in kinds)
