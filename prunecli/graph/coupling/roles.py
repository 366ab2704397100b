"""Which weights make channels, and which read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.graph.operators import (
    CONTRACTIONS,
    CONVOLUTIONS,
    DEFORMABLE_CONVOLUTIONS,
    EMBEDDINGS,
    LINEAR,
    TRANSPOSED_CONVOLUTIONS,
    operator_name,
    read_nodes,
    schema_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from prunecli.graph.coupling.ids import Axis
    from prunecli.graph.coupling.products import Resolution
    from prunecli.graph.rules import Annotation
    from prunecli.graph.tracing.trace import Trace

Site = tuple[str, int]
"""A parameter and one of its dimensions."""

PRODUCERS = {
    **dict.fromkeys(CONVOLUTIONS | DEFORMABLE_CONVOLUTIONS | LINEAR, 0),
    **dict.fromkeys(TRANSPOSED_CONVOLUTIONS | EMBEDDINGS, 1),
}
"""Operators whose weight starts channels, and on which dimension; the other one reads them."""


def roles(
    trace: Trace, known: Mapping[str, Annotation], found: Resolution
) -> tuple[set[Site], set[Site]]:
    """Return the sites of weights that make channels, and of weights that read them."""
    producers: set[Site] = set()
    consumers: set[Site] = set()
    behind = parameters_behind(trace)
    for node in trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator in PRODUCERS:
            weight, made = schema_arguments(node)["weight"], PRODUCERS[operator]
            if weight.name in trace.tensors:
                producers.add((trace.tensors[weight.name], made))
                consumers.add((trace.tensors[weight.name], 1 - made))
                continue
            # A weight made of parameters (scaled, joined, seen as another shape): their dimensions.
            own = behind[weight.name]
            names = _upstream(weight, trace) if own is None else own
            sources = {name: known[name] for name in names}
            # Of a weight made from inputs too, what reads channels may be what has made them.
            sides = ((producers, made), (consumers, 1 - made))
            for role, at in sides[:1] if own is None else sides:
                role |= {
                    (trace.tensors[name], dim)
                    for name, dim in _carriers(sources, known[weight.name], at, found)
                }
        elif operator in CONTRACTIONS:
            output = _numbers(known[node.name])
            weights = {name for value in node.all_input_nodes for name in behind[value.name] or ()}
            for name in weights:
                for dim, axis in enumerate(known[name] or ()):
                    if isinstance(axis, np.ndarray):
                        role = producers if np.isin(axis, output).any() else consumers
                        role.add((trace.tensors[name], dim))
    return producers, consumers


def _upstream(node: fx.Node, trace: Trace) -> set[str]:
    """Return the placeholders of all parameters that a value depends on."""
    seen, waiting = {node}, [node]
    while waiting:
        more = set(read_nodes(waiting.pop())) - seen
        seen |= more
        waiting.extend(more)
    return {value.name for value in seen if value.name in trace.tensors}


def _carriers(
    sources: Mapping[str, Annotation], weight: Annotation, at: int, found: Resolution
) -> list[Site]:
    """Return the dimensions of the sources whose channels are those of dimension `at` of a weight.

    Factors and shifts of single channels (one long dimension) have a say where nothing else has.
    """
    axis = weight[at] if isinstance(weight, tuple) else None
    if not isinstance(axis, np.ndarray):
        return []
    wanted = np.setdiff1d(found.roots[axis], found.roots[:1])
    sites = {}
    for name, axes in sources.items():
        own = [item if isinstance(item, np.ndarray) else None for item in axes or ()]
        rank = sum(item is not None and item.size > 1 for item in own)
        for dim, item in enumerate(own):
            if item is not None and np.isin(found.roots[item], wanted).any():
                sites[name, dim] = rank
    return [site for site, rank in sites.items() if rank > 1 or max(sites.values()) < 2]


def parameters_behind(trace: Trace) -> dict[str, frozenset[str] | None]:
    """Return, per node, the placeholders of parameters that it is made of.

    None stands for a value that depends on an input of the network.
    """
    behind: dict[str, frozenset[str] | None] = {}
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            own = frozenset({node.name}) if node.name in trace.tensors else None
            behind[node.name] = frozenset() if node.name in trace.constants else own
            continue
        sources = [behind[value.name] for value in read_nodes(node)]
        activation = any(found is None for found in sources)
        behind[node.name] = None if activation else frozenset().union(*filter(None, sources))
    return behind


def _numbers(annotation: Annotation) -> Any:
    axes: list[Axis] = list(annotation) if isinstance(annotation, tuple) else []
    present = [axis for axis in axes if axis is not None]
    return np.concatenate(present) if present else np.zeros(0, np.int64)
