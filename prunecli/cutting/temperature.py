"""The temperature of attention: what keeps it when the width of queries and keys is cut.

Attention divides by the square root of the width that it sees. A cut network sees a smaller one, so
its logits would grow by sqrt(before / after). A factor of sqrt(after / before) on what makes the
queries restores them; or on what makes the keys, where the queries are read by others as well (for
relative positions).
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
    read_nodes,
    schema_arguments,
    shape_of,
)
from prunecli.graph.tracing.record import tensors_in

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
    for node in _cut_kernels(trace, sizes):
        query = schema_arguments(node)["query"]
        factor = (sizes.left(query, -1) / shape_of(query, trace.batch)[-1]) ** 0.5
        for tensor, rows in _weights(node, trace):
            if (rows, factor) not in found.setdefault(tensor, []):
                found[tensor].append((rows, factor))
    return {tensor: tuple(factors) for tensor, factors in found.items()}


def tempered_nodes(
    trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]
) -> frozenset[str]:
    """Return the names of the attention kernels whose temperature such factors keep."""
    kernels = _cut_kernels(trace, Sizes(trace, coupling, keep))
    return frozenset(node.name for node in kernels if any(_weights(node, trace)))


def _cut_kernels(trace: Trace, sizes: Sizes) -> Iterator[fx.Node]:
    """Yield the attention kernels of the default temperature whose queries are cut."""
    for node in trace.graph.nodes:
        if node.op != "call_function" or operator_name(node.target) not in ATTENTION:
            continue
        arguments = schema_arguments(node)
        if arguments["scale"] is None and sizes.is_cut(arguments["query"], -1):
            yield node


def scaled(tensor: Tensor, factors: tuple[tuple[Indices, float], ...]) -> Tensor:
    """Return a copy of a tensor with some positions of dimension 0 multiplied."""
    result = tensor.detach().clone()
    for rows, factor in factors:
        result[torch.tensor(rows, device=result.device)] *= factor
    return result


def _weights(kernel: fx.Node, trace: Trace) -> Iterator[tuple[str, Indices]]:
    """Yield the weight and bias that make queries (or keys), with the positions that are read."""
    for operand in ("query", "key"):
        found = _made(schema_arguments(kernel)[operand], trace)
        if found is None:
            continue
        maker, rows = found
        if not _read_alone(maker, rows, operand, trace):
            continue
        arguments = schema_arguments(maker)
        for name in ("weight", "bias"):
            value = arguments.get(name)
            if value is not None and value.name in trace.tensors:
                yield trace.tensors[value.name], rows
        return


def _made(operand: fx.Node, trace: Trace) -> tuple[fx.Node, Indices] | None:
    """Return the layer that makes an operand, and the positions of its output that this holds."""
    maker = operand
    while operator_name(maker.target) in FOLLOWED:
        maker = maker.all_input_nodes[0]
    operator = operator_name(maker.target) if maker.op == "call_function" else ""
    if operator not in MAKERS:
        return None
    return maker, next(rows for _, value, rows in _reading(maker, trace) if value is operand)


def _read_alone(maker: fx.Node, rows: Indices, operand: str, trace: Trace) -> bool:
    """Tell whether attention kernels alone read positions of a layer, as this operand."""
    return all(
        operator_name(reader.target) in ATTENTION and schema_arguments(reader)[operand] is value
        for reader, value, others in _reading(maker, trace)
        if set(rows).intersection(others)
    )


def _reading(maker: fx.Node, trace: Trace) -> Iterator[tuple[fx.Node, fx.Node, Indices]]:
    """Yield what reads a layer's output after moves alone: the reader, what of, which positions."""
    shape = shape_of(maker, trace.batch)
    dim = MAKERS[operator_name(maker.target)]
    line = [1] * len(shape)
    line[dim] = shape[dim]
    held: dict[fx.Node, Any] = {maker: torch.arange(shape[dim]).view(line).expand(shape)}

    def value(argument: Any) -> Any:
        if isinstance(argument, fx.Node) and argument not in held:
            return concrete(argument.meta["val"], trace.batch)
        return held.get(argument, argument)

    waiting = [maker]
    while waiting:
        node = waiting.pop()
        for user in node.users:
            given = user.op == "output" or tensors_in(user.meta.get("val"))
            if node not in read_nodes(user) or not given:
                continue  # its type or its sizes alone are read
            operator = operator_name(user.target) if user.op == "call_function" else ""
            if operator not in FOLLOWED:
                if isinstance(held[node], Tensor):
                    yield user, node, tuple(held[node].unique().tolist())
                continue
            if operator in IDENTITIES:
                held[user] = held[node]  # positions stay whole numbers
            else:
                arguments = fx.node.map_aggregate(user.args, value)
                held[user] = user.target(*arguments, **fx.node.map_aggregate(user.kwargs, value))  # type: ignore[operator]
            waiting.append(user)
