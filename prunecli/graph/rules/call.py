"""One operator call in a traced graph, as op rules see it, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from prunecli.graph.constants import constant_value
from prunecli.graph.coupling.ids import Axes, Axis, IdSpace
from prunecli.graph.operators import read_nodes, shape_of
from prunecli.registry import Registry

Annotation = Axes | list[Axes | None] | None
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
        """Return every node that stands for one tensor, but those read for their type alone."""
        return [
            node for node in read_nodes(self.node) if isinstance(self.known.get(node.name), tuple)
        ]


Rule = Callable[[Call], Annotation]

RULES: Registry[Rule] = Registry("operator")


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register one function as the rule of operators of one kind; its docstring is the summary."""

    def register(function: Rule) -> Rule:
        for operator in sorted(operators):  # families are sets, whose order is any
            RULES.add(operator, function, summary=function.__doc__ or "")
        return function

    return register


def no_axes(node: fx.Node) -> Annotation:
    """Return axes without ids for a node's output or outputs."""
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return (None,) * value.dim()
    if isinstance(value, list | tuple):
        return [(None,) * item.dim() if isinstance(item, Tensor) else None for item in value]
    return None


def align_right(axes: Axes, rank: int) -> tuple[Axis, ...]:
    """Pad axes on the left with None, as broadcasting does."""
    return (None,) * (rank - len(axes)) + axes
