"""Weights that the forward computes from parameters alone: computed once, and stored instead.

A weight-standardised convolution, weight norm and spectral norm compute their weight anew in every
forward, by steps through which no channel can be followed: a mean over the fan-in changes when
inputs go. The sub-graph depends on no input, so its value is a constant, and a plain layer over
that constant is the same network.

What can be followed (views, joins, pointwise arithmetic) is left as it is.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.emitting.program import in_precision
from prunecli.graph.operators import FAKE_QUANTIZERS, is_pointwise, operator_name, schema_arguments
from prunecli.graph.tracing.trace import Folding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prunecli.graph.tracing.trace import Trace

FOLLOWED = frozenset(
    {
        "alias", "cat", "chunk", "clone", "concat", "concatenate", "constant_pad_nd", "contiguous",
        "detach", "expand", "expand_as", "flatten", "flip", "getitem", "index", "index_select",
        "lift_fresh_copy", "narrow", "numpy_T", "pad", "permute", "repeat", "repeat_interleave",
        "reshape", "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack",
        "swapaxes", "t", "tile", "to", "transpose", "unflatten", "unsqueeze", "view",
        "_assert_tensor_metadata", "_to_copy",
    }
)  # fmt: skip
"""Operators beside the pointwise ones through which the channels of a weight are followed."""


def evaluate_folding(
    folding: Folding, state: Mapping[str, Tensor], *, follows_inputs: bool = False
) -> dict[str, Tensor]:
    """Return the folded tensors that follow from `state`, in its precision.

    With `follows_inputs`, types that the sub-graph names stand for that of `state`.
    """
    given = [
        folding.constants[node.name]
        if node.name in folding.constants
        else state[folding.sources[node.name]]
        for node in folding.graph.nodes
        if node.op == "placeholder"
    ]
    precision = next((value.dtype for value in given if value.is_floating_point()), None)
    cast = [value.to(precision) if value.is_floating_point() else value for value in given]
    network = fx.GraphModule(nn.Module(), folding.graph)
    if follows_inputs and precision is not None:
        network = in_precision(network, precision)
    with torch.no_grad():
        values = fx.Interpreter(network).run(*(value.detach() for value in cast))
    return dict(zip(folding.tensors, values, strict=True))


def fold(trace: Trace, stored: Mapping[str, Tensor]) -> Trace:
    """Return the trace with every weight that cannot be followed stored as a tensor of its own.

    `stored` holds the parameters and buffers of the network by name. A trace without such weights,
    or one that does not stand for the network, comes back as it is.
    """
    if trace.recorded:
        return trace
    fixed = _fixed(trace)
    ends = _weights_to_fold(trace, fixed)
    if not ends:
        return trace
    same = _equal_nodes(trace, fixed)
    first: dict[int, fx.Node] = {}
    for end in ends:
        first.setdefault(same[end], end)
    dropped = _dropped(fixed, set(ends))
    names = _names(trace, list(first.values()), dropped)
    folding = _folding(trace, names, dropped, stored)
    by_end = {end: names[first[same[end]]] for end in ends}
    graph, tensors = _replaced(trace, by_end, dropped)
    buffers = {name for end, name in names.items() if not _sources(end, trace) - trace.buffers}
    return dataclasses.replace(
        trace,
        graph=graph,
        tensors=tensors,
        constants={
            node.name: trace.constants[node.name]
            for node in graph.nodes
            if node.name in trace.constants
        },
        buffers=(trace.buffers - set(names.values())) | buffers,
        folding=folding,
    )


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a network by name, detached."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach() for name, value in named.items()}


def folded_tensors(trace: Trace, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the traced graph reads where a network holds `stored`: folded weights as one."""
    if trace.folding is None:
        return dict(stored)
    kept = {name: item for name, item in stored.items() if name not in trace.folding.absorbed}
    return {**kept, **trace.folding.tensors}


# --- which weights -------------------------------------------------------------------------------


def _fixed(trace: Trace) -> set[fx.Node]:
    """Return the calls whose every input is stored: their value never changes."""
    stored = {*trace.tensors, *trace.constants}
    fixed: set[fx.Node] = set()
    for node in trace.graph.nodes:
        inputs = node.all_input_nodes
        depends = not inputs or any(v not in fixed and v.name not in stored for v in inputs)
        if node.op == "call_function" and _is_pure(node.target) and not depends:
            fixed.add(node)
    return fixed


def _is_pure(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload):  # noqa: SLF001
        return operator_name(target) == "getitem"
    # A write in place may be read elsewhere, through a view.
    writes = target._schema.is_mutable and operator_name(target) != "detach"  # noqa: SLF001
    return not writes and torch.Tag.nondeterministic_seeded not in target.tags


def _weights_to_fold(trace: Trace, fixed: set[fx.Node]) -> list[fx.Node]:
    """Return the computed weights of layers whose computation cannot be followed, in order."""
    ends: dict[fx.Node, None] = {}
    for node in trace.graph.nodes:
        if node in fixed or node.op != "call_function":
            continue
        weight = schema_arguments(node).get("weight")
        is_layer = operator_name(node.target) in PRODUCERS
        if is_layer and weight in fixed and any(not _is_followed(step) for step in _cone(weight)):
            ends[weight] = None
    return list(ends)


def _is_followed(node: fx.Node) -> bool:
    return is_pointwise(node.target) or operator_name(node.target) in FOLLOWED | FAKE_QUANTIZERS


def _cone(end: fx.Node) -> list[fx.Node]:
    """Return the calls that a fixed value follows from, itself first."""
    found = {end: None}
    waiting = [end]
    while waiting:
        inputs = [value for value in waiting.pop().all_input_nodes if value not in found]
        calls = [value for value in inputs if value.op == "call_function"]
        found.update(dict.fromkeys(calls))
        waiting.extend(calls)
    return list(found)


def _stored_nodes(end: fx.Node) -> list[fx.Node]:
    """Return the placeholders that a fixed value follows from, in the order of the graph."""
    found = {
        value for node in _cone(end) for value in node.all_input_nodes if value.op == "placeholder"
    }
    return [node for node in end.graph.nodes if node in found]


def _sources(end: fx.Node, trace: Trace) -> set[str]:
    """Return the names of the parameters and buffers that a fixed value follows from."""
    return {trace.tensors[node.name] for node in _stored_nodes(end) if node.name in trace.tensors}


def _equal_nodes(trace: Trace, fixed: set[fx.Node]) -> dict[fx.Node, int]:
    """Give fixed values numbers; the same computation twice (a layer called twice) has one."""
    numbers: dict[str, int] = {}
    result: dict[fx.Node, int] = {}
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            key = f"stored {trace.tensors.get(node.name, node.name)}"
        elif node in fixed:
            args, kwargs = fx.node.map_arg(
                (node.args, node.kwargs), lambda value: f"#{result[value]}"
            )
            key = f"{node.target} {args!r} {kwargs!r}"
        else:
            continue
        result[node] = numbers.setdefault(key, len(numbers))
    return result


def _dropped(fixed: set[fx.Node], ends: set[fx.Node]) -> set[fx.Node]:
    """Return every node that only folded weights, and checks of them, still need."""
    involved = {node for end in ends for node in (*_cone(end), *_stored_nodes(end))}
    involved |= {
        node for node in fixed if not node.users and involved.issuperset(node.all_input_nodes)
    }
    dropped: set[fx.Node] = set()
    for node in reversed(next(iter(ends)).graph.nodes):
        if node in ends or (node in involved and dropped.issuperset(node.users)):
            dropped.add(node)
    return dropped


# --- names ---------------------------------------------------------------------------------------


def _names(trace: Trace, ends: list[fx.Node], dropped: set[fx.Node]) -> dict[fx.Node, str]:
    """Name every folded tensor after the parameter that it comes from."""
    taken = _still_read(trace, dropped)
    names: dict[fx.Node, str] = {}
    for end in ends:
        wanted = _origin(end, trace)
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}_folded" if count == 2 else f"{wanted}_folded{count - 1}"
        taken.add(name)
        names[end] = name
    return names


def _still_read(trace: Trace, dropped: set[fx.Node]) -> set[str]:
    gone = {node.name for node in dropped}
    return {name for node, name in trace.tensors.items() if node not in gone}


def _origin(end: fx.Node, trace: Trace) -> str:
    """Return the name of the one parameter of the same size, else `weight` where they all live."""
    nodes = [node for node in _stored_nodes(end) if node.name in trace.tensors]
    size = end.meta["val"].numel()
    named = {trace.tensors[node.name]: node.meta["val"].numel() for node in nodes}
    parameters = [name for name in named if name not in trace.buffers] or list(named)
    alike = [name for name in parameters if named[name] == size or len(parameters) == 1]
    if len(alike) == 1:
        return _plain_name(alike[0], named)
    paths = [name.split(".")[:-1] for name in parameters]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join([*shared, "weight"] if paths else [f"folded_{end.name}"])


def _plain_name(name: str, sources: Iterable[str]) -> str:
    """Undo the names that torch gives to a parameter which it computes a weight from.

    >>> _plain_name("fc.parametrizations.weight.original1", [])
    'fc.weight'
    >>> _plain_name("fc.weight_v", ["fc.weight_v", "fc.weight_g"])
    'fc.weight'
    """
    plain = re.sub(r"(^|\.)parametrizations\.([^.]+)\.original\d*$", r"\1\2", name)
    stem, _, mark = name.rpartition("_")
    partners = {"v": "g", "orig": "u"}
    if mark in partners and f"{stem}_{partners[mark]}" in set(sources):
        return stem
    return plain


# --- the folded trace ----------------------------------------------------------------------------


def _folding(
    trace: Trace, names: Mapping[fx.Node, str], dropped: set[fx.Node], stored: Mapping[str, Tensor]
) -> Folding:
    needed = {node for end in names for node in (*_cone(end), *_stored_nodes(end))}
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in trace.graph.nodes:
        if node in needed:
            copied[node] = graph.node_copy(node, lambda value: copied[value])
    graph.output(tuple(copied[end] for end in names))
    given = [node.name for node in needed if node.op == "placeholder"]
    sources = {node: trace.tensors[node] for node in given if node in trace.tensors}
    empty = Folding(
        graph=graph,
        sources=sources,
        constants={node: trace.constants[node] for node in given if node not in trace.tensors},
        tensors=dict.fromkeys(names.values(), torch.empty(0)),
        absorbed=frozenset(set(sources.values()) - _still_read(trace, dropped)),
    )
    # In double precision, and rounded once: as close to the network's own as its precision allows.
    exact = evaluate_folding(
        empty,
        {
            name: stored[name].double() if stored[name].is_floating_point() else stored[name]
            for name in sources.values()
        },
    )
    tensors = {
        name: exact[name].to(end.meta["val"].dtype).contiguous() for end, name in names.items()
    }
    return dataclasses.replace(empty, tensors=tensors)


def _replaced(
    trace: Trace, by_end: Mapping[fx.Node, str], dropped: set[fx.Node]
) -> tuple[fx.Graph, dict[str, str]]:
    """Return the graph that reads the folded tensors, and its placeholders' tensors."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    tensors: dict[str, str] = {}
    folded: dict[str, fx.Node] = {}
    used = {node.name for node in trace.graph.nodes}
    for end, name in by_end.items():
        if name not in folded:
            folded[name] = graph.placeholder(_free(f"p_{re.sub(r'[^0-9a-zA-Z]', '_', name)}", used))
            folded[name].meta = {**end.meta}
            tensors[folded[name].name] = name
        copied[end] = folded[name]
    for node in trace.graph.nodes:
        if node not in dropped:
            copied[node] = graph.node_copy(node, lambda value: copied[value])
            if node.name in trace.tensors:
                tensors[copied[node].name] = trace.tensors[node.name]
    return graph, tensors


def _free(name: str, used: set[str]) -> str:
    while name in used:
        name += "_folded"
    used.add(name)
    return name
