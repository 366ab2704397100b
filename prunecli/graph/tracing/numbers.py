"""Numbers that a forward reads from its own constants, written into the graph that asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from prunecli.graph.constants import constant_value
from prunecli.graph.operators import operator_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASKING = frozenset({"item", "_local_scalar_dense"})
"""Operators that give the number in a tensor of one element."""


def write_numbers(graph: fx.Graph, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the number in the place of every question for one that follows from constants alone.

    `constants` are by placeholder. Those that are still read afterwards are returned; the others
    have no placeholder any more.
    """
    asked = [
        node
        for node in graph.nodes
        if node.op == "call_function" and operator_name(node.target) in _ASKING
    ]
    for node in asked:
        value = constant_value(node.args[0], constants)
        if value is None:
            continue
        for user in list(node.users):
            user.args = fx.node.map_arg(user.args, _replacing(node, value.item()))
            user.kwargs = fx.node.map_arg(user.kwargs, _replacing(node, value.item()))
        graph.erase_node(node)
    if asked:
        graph.eliminate_dead_code()
    unread = [
        node
        for node in graph.find_nodes(op="placeholder")
        if node.name in constants and not node.users
    ]
    for node in unread:
        graph.erase_node(node)
    gone = {node.name for node in unread}
    return {name: value for name, value in constants.items() if name not in gone}


def _replacing(node: fx.Node, number: float) -> Any:
    return lambda value: number if value is node else value
