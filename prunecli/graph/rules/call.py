"""One operator call in a traced graph, as op rules see it, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from prunecli.graph.constants import constant_value
from prunecli.graph.ids import Axes, Axis, IdSpace
from prunecli.graph.trace import concrete
from prunecli.registry import Registry

Annotation = Axes | list[Axes] | None
"""What a node's value carries: axes, a list of axes for several outputs, None for a scalar."""


@dataclass(frozen=True)
class Call:
    """An operator, its arguments by schema name (defaults filled in), and the ids so far."""

    node: fx.Node
    operator: str
    arguments: Mapping[str, Any]
    known: Mapping[str, Annotation]
    ids: IdSpace
    batch: Any
    integers: Mapping[str, Tensor] = field(default_factory=dict)

    def constant(self, value: Any) -> Tensor | None:
        """Return the value of a node that depends on stored integers alone, else None."""
        return constant_value(value, self.integers)

    def axes(self, argument: str) -> Axes:
        """Return the axes of a tensor argument."""
        return self.axes_of(self.arguments[argument])

    def axes_of(self, value: Any) -> Axes:
        """Return the axes of a node that stands for one tensor."""
        annotation = self.known[value.name]
        assert isinstance(annotation, tuple)
        return annotation

    def shape(self, argument: str) -> tuple[int, ...]:
        """Return the shape of a tensor argument, for one input."""
        return shape_of(self.arguments[argument], self.batch)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the (only) output, for one input."""
        return shape_of(self.node, self.batch)

    def dim(self, argument: str, of: str = "self") -> int:
        """Return a dim argument as a non-negative index into the axes of `of`."""
        return int(self.arguments[argument]) % max(len(self.axes(of)), 1)

    def tensors(self) -> list[fx.Node]:
        """Return every node among the arguments that stands for one tensor."""
        return [
            node
            for node in self.node.all_input_nodes
            if isinstance(self.known.get(node.name), tuple)
        ]


Rule = Callable[[Call], Annotation]

RULES: Registry[Rule] = Registry("operator")


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register one function as the rule of operators of one kind; its docstring is the summary."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES.add(operator, function, summary=function.__doc__ or "")
        return function

    return register


def shape_of(node: fx.Node, batch: Any) -> tuple[int, ...]:
    """Return the shape of a node's tensor with the batch counted as one."""
    return tuple(concrete(size, batch) for size in node.meta["val"].shape)


def size_of(size: Any, batch: Any) -> int:
    """Return an integer argument, which may be computed, with the batch counted as one."""
    return concrete(size.meta["val"] if isinstance(size, fx.Node) else size, batch)


def no_axes(node: fx.Node) -> Annotation:
    """Return axes without ids for a node's output or outputs."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return (None,) * value.dim()
    if isinstance(value, list | tuple):
        return [(None,) * item.dim() for item in value if isinstance(item, Tensor)]
    return None


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


def align_right(axes: Axes, rank: int) -> tuple[Axis, ...]:
    """Pad axes on the left with None, as broadcasting does."""
    return (None,) * (rank - len(axes)) + axes


def is_tensor(node: fx.Node) -> bool:
    """Tell whether a node stands for one tensor."""
    return isinstance(node.meta.get("val"), Tensor)


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
