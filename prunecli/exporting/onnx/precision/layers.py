"""The layers of an ONNX graph, and which of them to leave in float."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that are layers where one of their inputs is a weight."""


@dataclass(frozen=True)
class Layer:
    """An operator with a weight; `nodes` are its own and those up to the next layer, by name."""

    name: str
    nodes: tuple[str, ...]


def name_nodes_(graph: Any) -> None:
    """Give every node a name of its own, in place."""
    taken: set[str] = set()
    for at, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{at}"
        taken.add(node.name)


def find_layers(graph: Any) -> tuple[Layer, ...]:
    """Return the layers in the order of execution.

    What comes before the first layer belongs to it. A layer is called as its weight is.
    """
    weights = {tensor.name for tensor in graph.initializer}
    found: list[Layer] = []
    before: tuple[str, ...] = ()
    for node in graph.node:
        own = [name for name in node.input[1:2] if name in weights]
        if node.op_type in WEIGHTED and own:
            found.append(Layer(own[0].removesuffix(".weight"), (*before, node.name)))
            before = ()
        elif found:
            found[-1] = replace(found[-1], nodes=(*found[-1].nodes, node.name))
        else:
            before = (*before, node.name)
    return tuple(found)


def fewest(order: Sequence[Layer], is_enough: Callable[[Sequence[Layer]], bool]) -> int:
    """Return how many of the first layers it takes, where more never make it worse.

    Doubled until it is enough, then halved; all of them where nothing less is.

    >>> fewest([Layer(str(at), ()) for at in range(20)], lambda chosen: len(chosen) >= 7)
    7
    """
    low, high = 0, 1
    while high < len(order) and not is_enough(order[:high]):
        low, high = high, 2 * high
    high = min(high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        if is_enough(order[:middle]):
            high = middle
        else:
            low = middle
    return high
