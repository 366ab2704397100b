"""The temperature of attention: what keeps it when the width of queries and keys is cut.

Attention divides by the square root of the width that it sees. A cut network sees a smaller one, so
its logits would grow by sqrt(before / after). A factor of sqrt(after / before) on what makes the
queries restores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from prunecli.graph.emitting.sizes import Sizes
from prunecli.graph.operators import (
    ATTENTION,
    CONVOLUTIONS,
    IDENTITIES,
    LAYER_NORMS,
    LINEAR,
    MOVES,
    concrete,
    operator_name,
    schema_arguments,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace
    from prunecli.plan import Indices

Factors = Mapping[str, tuple[tuple["Indices", float], ...]]
"""`{tensor: ((positions of dimension 0 before the cut, factor), ...)}`."""

FOLLOWED = MOVES | {"clone", "getitem"}
"""Operators through which a query is followed back to the layer that makes it."""

MAKERS = {**dict.fromkeys(LINEAR | LAYER_NORMS, -1), **dict.fromkeys(CONVOLUTIONS, 1)}
"""Operators whose weight scales what they give, and the dimension that its positions make."""


def temperature_factors(trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]) -> Factors:
    """Return the factors for the weights of the queries whose width a cut changes.

    Only attention kernels with the default temperature need them in a module of the user; a query
    that does not come straight from a layer is left out (the proof tells).
    """
    sizes = Sizes(trace, coupling, keep)
    found: dict[str, list[tuple[Indices, float]]] = {}
    for _, query in _cut_queries(trace, sizes):
        factor = (sizes.left(query, -1) / shape_of(query, trace.batch)[-1]) ** 0.5
        for tensor, rows in _weights(query, trace):
            if (rows, factor) not in found.setdefault(tensor, []):
                found[tensor].append((rows, factor))
    return {tensor: tuple(factors) for tensor, factors in found.items()}


def tempered_nodes(
    trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]
) -> frozenset[str]:
    """Return the names of the attention kernels whose temperature such factors keep."""
    queries = _cut_queries(trace, Sizes(trace, coupling, keep))
    return frozenset(node.name for node, query in queries if any(_weights(query, trace)))


def _cut_queries(trace: Trace, sizes: Sizes) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield the attention kernels of the default temperature whose queries are cut, and these."""
    for node in trace.graph.nodes:
        if node.op != "call_function" or operator_name(node.target) not in ATTENTION:
            continue
        arguments = schema_arguments(node)
        query = arguments["query"]
        if arguments["scale"] is None and sizes.is_cut(query, -1):
            yield node, query


def scaled(tensor: Tensor, factors: tuple[tuple[Indices, float], ...]) -> Tensor:
    """Return a copy of a tensor with some positions of dimension 0 multiplied."""
    result = tensor.detach().clone()
    for rows, factor in factors:
        result[torch.tensor(rows, device=result.device)] *= factor
    return result


def _weights(query: fx.Node, trace: Trace) -> Iterator[tuple[str, Indices]]:
    """Yield the weight and bias that make a query, with the positions that it reads."""
    chain = [query]
    while operator_name(chain[-1].target) in FOLLOWED:
        chain.append(chain[-1].all_input_nodes[0])
    maker = chain.pop()
    operator = operator_name(maker.target) if maker.op == "call_function" else ""
    if operator not in MAKERS:
        return
    arguments = schema_arguments(maker)
    rows = _positions(maker, chain[::-1], MAKERS[operator], trace)
    for name in ("weight", "bias"):
        value = arguments.get(name)
        if value is not None and value.name in trace.tensors:
            yield trace.tensors[value.name], rows


def _positions(maker: fx.Node, chain: list[fx.Node], dim: int, trace: Trace) -> Indices:
    """Return the positions of a dimension that are left at the end of a chain of moves."""
    shape = shape_of(maker, trace.batch)
    line = [1] * len(shape)
    line[dim] = shape[dim]
    held: dict[fx.Node, Any] = {maker: torch.arange(shape[dim]).view(line).expand(shape)}

    def value(argument: Any) -> Any:
        if isinstance(argument, fx.Node) and argument not in held:
            return concrete(argument.meta["val"], trace.batch)
        return held.get(argument, argument)

    for node in chain:
        if operator_name(node.target) in IDENTITIES:
            held[node] = held[node.all_input_nodes[0]]  # positions stay whole numbers
            continue
        arguments = fx.node.map_aggregate(node.args, value)
        held[node] = node.target(*arguments, **fx.node.map_aggregate(node.kwargs, value))  # type: ignore[operator]
    return tuple(held[chain[-1]].unique().tolist()) if chain else tuple(range(shape[dim]))
