"""Reading one operator call of a traced graph: its name, arguments, sizes and source line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    from collections.abc import Mapping

_TORCH = str(Path(torch.__file__).parent)


def shape_of(node: fx.Node, batch: Any) -> tuple[int, ...]:
    """Return the shape of a node's tensor with the batch counted as one."""
    return tuple(concrete(size, batch) for size in node.meta["val"].shape)


def size_of(size: Any, batch: Any) -> int:
    """Return an integer argument, which may be computed, with the batch counted as one."""
    return concrete(size.meta["val"] if isinstance(size, fx.Node) else size, batch)


def operator_name(target: Any) -> str:
    """Return the bare name of an operator: in-place and overload spellings are one operator.

    >>> operator_name(torch.ops.aten.relu_.default)
    'relu'
    """
    if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - the only name of that class
        name = target._schema.name.rsplit("::", 1)[-1]  # noqa: SLF001
        return name if name.startswith("__") else name.rstrip("_")
    return getattr(target, "__name__", str(target))


def schema_arguments(node: fx.Node) -> dict[str, Any]:
    """Return a call's arguments by their schema names, with the defaults filled in."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return {str(position): value for position, value in enumerate(node.args)}
    arguments = {}
    for position, argument in enumerate(target._schema.arguments):  # noqa: SLF001
        if position < len(node.args):
            arguments[argument.name] = node.args[position]
        else:
            default = argument.default_value if argument.has_default_value() else None
            arguments[argument.name] = node.kwargs.get(argument.name, default)
    return arguments


def reduced_dims(arguments: Mapping[str, Any], rank: int) -> set[int]:
    """Return the dimensions that a reduction runs over: those that it names, or all."""
    wanted = arguments.get("dim")
    if wanted is None or wanted == []:
        return set(range(rank))
    return {dim % max(rank, 1) for dim in ([wanted] if isinstance(wanted, int) else wanted)}


def is_pointwise(target: Any) -> bool:
    """Tell whether torch itself tags an operator as pointwise."""
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return False
    return torch.Tag.pointwise in target.tags


def is_written(node: fx.Node) -> bool:
    """Tell whether an operator writes in place into this view of a tensor, or into a view of it."""
    for user in node.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None or not user.args or user.args[0] is not node:
            continue
        shares = any(value.alias_info is not None for value in schema.returns)
        if schema.is_mutable or (shares and is_written(user)):
            return True
    return False


def source_line(node: fx.Node) -> str | None:
    """Return `file:line` of the user's code behind a node, where the trace recorded it."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith(_TORCH)] or frames
    return f"{own[-1][0]}:{own[-1][1]}" if own else None


def concrete(size: Any, batch: Any = None) -> int:
    """Return a size as an integer, for one input: the batch symbol counts as 1."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if batch is not None:
        expression = expression.subs({batch: 1})
    return int(expression) if expression.is_number else int(size.node.hint)
