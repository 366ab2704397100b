"""Values that a traced graph computes from nothing but stored integers: index tables, mostly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

if TYPE_CHECKING:
    from collections.abc import Mapping

_HARMLESS_WRITES = frozenset({"detach_"})


def constant_value(node: Any, stored: Mapping[str, Tensor]) -> Tensor | None:
    """Return the value of a node that depends on `stored` placeholders alone, else None.

    A node that writes into its argument has no known value: a view of it may be read elsewhere.
    """
    known = _values(node, stored)
    return None if known is None else known[node]


def _values(node: Any, stored: Mapping[str, Tensor]) -> dict[fx.Node, Tensor] | None:
    """Compute every node that `node` depends on, in order; no recursion."""
    if not isinstance(node, fx.Node):
        return None
    known: dict[fx.Node, Tensor] = {}
    waiting = [node]
    while waiting:
        current = waiting[-1]
        missing = [value for value in current.all_input_nodes if value not in known]
        if missing:
            waiting.extend(missing)
            continue
        value = _one(current, known, stored)
        if value is None:
            return None
        known[current] = value
        waiting.pop()
    return known


def _one(
    node: fx.Node, known: Mapping[fx.Node, Tensor], stored: Mapping[str, Tensor]
) -> Tensor | None:
    if node.op == "placeholder":
        value = stored.get(node.name)
        return None if value is None or value.is_meta else value.detach().clone().cpu()
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001
        return None
    name = node.target._schema.name.rsplit("::", 1)[-1]  # noqa: SLF001
    if node.target._schema.is_mutable and name not in _HARMLESS_WRITES:  # noqa: SLF001
        return None
    if torch.Tag.nondeterministic_seeded in node.target.tags:
        return None
    arguments = fx.node.map_arg(node.args, lambda value: known[value])
    keywords = {
        key: fx.node.map_arg(value, lambda inner: known[inner])
        for key, value in node.kwargs.items()
        if key not in {"device", "pin_memory"}
    }
    with torch.no_grad():
        value = node.target(*arguments, **keywords)
    return value if isinstance(value, Tensor) else None
