"""Graph mode: write a traced graph as plain data, narrower, and run that data as a module.

A program is JSON: a list of nodes in the order of execution. It holds no code; only operators of
torch's own ATen library, arithmetic on sizes, and two modules that behave differently in training
(batch norm and dropout) can be named in it.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from prunecli.errors import GraphError, InputError
from prunecli.graph.emitting.allowed import SIZE_ARITHMETIC, find, resolve
from prunecli.graph.emitting.rewrites import REWRITES, Scaled, rewritten
from prunecli.graph.emitting.sizes import Sizes
from prunecli.graph.operators import (
    FILLS,
    is_written,
    operator_name,
    read_nodes,
    schema_arguments,
    source_line,
)
from prunecli.graph.outputs import has_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

PROGRAM_SCHEMA = 1
"""The schema of a program that every version reads."""

WRITES_SCHEMA = 2
"""The schema of a program with sums into some slots of a stream, which older versions refuse."""

OUTPUTS_SCHEMA = 3
"""The schema of a program whose outputs are more than tuples and dicts."""

_DATA_TYPES = (torch.dtype, torch.device, torch.memory_format, torch.layout)


def emit(trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the program of the traced graph with every baked-in size recomputed.

    `keep` has one entry per atom. Raises `GraphError` for a recorded forward, and for a call that a
    program cannot say (`NOT_WRITABLE`).
    """
    if trace.recorded:
        raise GraphError(
            f"this model cannot be written as a graph: {trace.recorded}",
            code="RECORDED_ONLY",
            hint="what one input made it do was recorded, which does not stand for the model; "
            "cut its own module with a signal of the weights alone (l1, l2, bn-gamma)",
        )
    sizes = Sizes(trace, coupling, keep)
    nodes = []
    for node in trace.graph.nodes:
        written = _write(node, trace, sizes)
        if written is not None:
            nodes.extend(_selected(node, written, trace, sizes))
    return {
        "schema": _schema(nodes, trace.output_structure),
        "nodes": _without_unread(nodes),
        "output": trace.output_structure,
    }


def _schema(nodes: list[dict[str, Any]], output: Any) -> int:
    if has_kinds(output):
        return OUTPUTS_SCHEMA
    return WRITES_SCHEMA if any(node["kind"] == "add_at" for node in nodes) else PROGRAM_SCHEMA


def emit_some(
    trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_], names: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return what the program of `emit` says of the nodes of these names, by names in it.

    A value that comes out whole is followed by nodes that select from it.
    """
    sizes = Sizes(trace, coupling, keep)
    found: dict[str, dict[str, Any]] = {}
    for node in trace.graph.nodes:
        written = _write(node, trace, sizes) if node.name in names else None
        if written is not None:
            selected = _selected(node, written, trace, sizes)
            found.update({entry["name"]: entry for entry in selected})
    return found


def following_nodes(trace: Trace) -> frozenset[str]:
    """Return the names of all nodes of which a program may say another thing after another cut.

    They repeat sizes or pick positions, or their values follow from no cut one and are selected
    from. Everything else is the same whichever channels are kept.
    """
    return frozenset(
        node.name
        for node in trace.graph.nodes
        if node.name in trace.constants
        or (
            node.op == "call_function"
            and _module(node, trace) is None
            and (operator_name(node.target) in REWRITES or _comes_out_whole(node))
        )
    )


def _without_unread(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out tensors that nothing reads any more: indices that were rewritten."""
    waiting: list[Any] = [(node.get("args"), node.get("kwargs")) for node in nodes]
    read = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            read.add(value.get("node", None))
            waiting.extend(item for item in value.values() if not isinstance(item, str))
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return [node for node in nodes if node["kind"] != "tensor" or node["name"] in read]


def _write(node: fx.Node, trace: Trace, sizes: Sizes) -> dict[str, Any] | None:
    if node.op == "placeholder":
        return _write_placeholder(node, trace)
    if node.op == "call_function" and operator_name(node.target) == "_assert_tensor_metadata":
        return None  # what a trace took for granted of a type holds in that type alone
    if node.op == "output":
        return {"name": "output", "kind": "output", "args": [encode(node.args[0])]}
    module = _module(node, trace)
    if module is not None:
        return {"name": node.name, **module}
    return _write_call(node, sizes)


def _selected(
    node: fx.Node, written: dict[str, Any], trace: Trace, sizes: Sizes
) -> list[dict[str, Any]]:
    """Select what is left of a value that follows from no cut one, and so comes out whole."""
    stored = node.op == "placeholder" and node.name not in trace.constants
    if stored or not _comes_out_whole(node):
        return [written]
    kept = {dim: sizes.kept(node, dim) for dim in range(node.meta["val"].dim())}
    takes = [(dim, indices) for dim, indices in kept.items() if indices is not None]
    names = [f"{node.name}_whole{step}" for step in range(len(takes))] + [node.name]
    return [
        {**written, "name": names[0]},
        *(
            _take(name, {"node": source}, dim, indices)
            for name, source, (dim, indices) in zip(names[1:], names, takes, strict=False)
        ),
    ]


def _comes_out_whole(node: fx.Node) -> bool:
    is_filled = operator_name(node.target) in FILLS
    is_tensor = isinstance(node.meta.get("val"), torch.Tensor)
    return is_tensor and not is_filled and not _reads_tensors(node)


def _reads_tensors(node: fx.Node) -> bool:
    values = [value.meta.get("val") for value in read_nodes(node)]
    return any(isinstance(value, torch.Tensor | list | tuple) for value in values)


def _take(name: str, source: Any, dim: int, indices: list[int]) -> dict[str, Any]:
    return {"name": name, "kind": "take", "args": [source], "dim": dim, "indices": indices}


def _write_placeholder(node: fx.Node, trace: Trace) -> dict[str, Any] | None:
    if node.name in trace.tensors:
        # The weights of a module come with it; what it works on may be stored as well.
        read = any(_module(user, trace) is None or user.args[0] is node for user in node.users)
        name = trace.tensors[node.name]
        return _tensor(node.name, name, trained=name not in trace.buffers) if read else None
    if node.name in trace.constants:
        name = constant_name(node.name)
        return _tensor(node.name, name, trained=False) if node.users else None
    return {"name": node.name, "kind": "input"}


def _write_call(node: fx.Node, sizes: Sizes) -> dict[str, Any]:
    arguments, changed = schema_arguments(node), rewritten(node, sizes)
    if "take" in changed:
        return _take(node.name, encode(arguments["self"]), **changed["take"])
    if "add_at" in changed:
        parts = [encode(arguments[name]) for name in ("self", "source")]
        return {"name": node.name, "kind": "add_at", "args": parts, **changed["add_at"]}
    target = changed.pop("operator", None) or _target(node, sizes)
    if find(target) is None:
        raise GraphError(
            f"the graph cannot be written anew: a file may not name the operator {target}",
            code="NOT_WRITABLE",
            where=source_line(node) or node.name,
            hint="only torch's own functions of tensors and numbers can be stored; express it by "
            "them, or keep the sizes out of the forward so that the model keeps its own class",
        )
    positional, keywords = _positional(target, {**arguments, **changed})
    return {
        "name": node.name,
        "kind": "call",
        "target": target if is_written(node) else _OF_ANY_LAYOUT.get(target, target),
        "args": [encode(value) for value in positional],
        "kwargs": {key: encode(value) for key, value in keywords.items()},
    }


_OF_ANY_LAYOUT = {
    "aten.view.default": "aten.reshape.default",
    "aten._unsafe_view.default": "aten.reshape.default",
}
"""Views that a trace may call possible because of how a kernel lays its output out in memory.

Another width or type takes another kernel, and a copy that the forward asks for (`contiguous`) is
not in the trace where that one input needed none.
"""


def _tensor(name: str, tensor: str, *, trained: bool) -> dict[str, Any]:
    return {"name": name, "kind": "tensor", "tensor": tensor, "trained": trained}


def constant_name(placeholder: str) -> str:
    """Return the state-dict name of a tensor that the forward made itself."""
    return f"_constant_{placeholder}"


def _target(node: fx.Node, sizes: Sizes) -> str:
    if isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001
        if _is_seen_elsewhere(node, sizes):
            return f"{node.target._schema.name.replace('::', '.')}.{node.target._overloadname}"  # noqa: SLF001
        overload = node.target._overloadname  # noqa: SLF001
        return f"{_functional(operator_name(node.target), overload, node.target)}"
    return operator_name(node.target)


def _is_seen_elsewhere(node: fx.Node, sizes: Sizes) -> bool:
    """Tell whether what a node writes in place is read by another name than its own.

    Then it must go on writing in place: `y[:, :4] = x` is a copy into a slice of `y`, and what is
    written to a buffer is there at the next call.
    """
    if not node.target._schema.is_mutable:  # type: ignore[union-attr] # noqa: SLF001
        return False
    written = node.args[0]
    while isinstance(written, fx.Node):
        if sizes.is_stored(written) or any(node < user for user in written.users):
            return True
        written = written.args[0] if _is_view(written) else None
    return False


def _is_view(node: fx.Node) -> bool:
    """Tell whether a node's value shares memory with its first argument."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001
        return node.target is operator.getitem
    returned = node.target._schema.returns  # noqa: SLF001
    return bool(returned) and returned[0].alias_info is not None


def _functional(name: str, overload: str, target: Any) -> str:
    """Return `aten.relu.default` for `aten.relu_.default`: training must not write in place."""
    packet = getattr(torch.ops.aten, name, None)
    if target.namespace == "aten" and packet is not None and overload in packet.overloads():
        return f"aten.{name}.{overload}"
    return f"{target._schema.name.replace('::', '.')}.{overload}"  # noqa: SLF001


def _positional(target: str, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    if target in SIZE_ARITHMETIC:
        return list(arguments.values()), {}
    schema = resolve(target)._schema.arguments  # noqa: SLF001
    positional = [arguments[item.name] for item in schema if not item.kwarg_only]
    keywords = {
        item.name: arguments[item.name]
        for item in schema
        if item.kwarg_only and arguments.get(item.name) is not None
    }
    return positional, keywords


# --- modules that behave differently in training -------------------------------------------------


def _batch_norm(node: fx.Node, trace: Trace) -> dict[str, Any] | None:
    arguments = schema_arguments(node)
    names = {
        key: trace.tensors.get(arguments[key].name) if arguments[key] is not None else None
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    prefix = (names["running_mean"] or "").removesuffix(".running_mean")
    own = all(name is None or name == f"{prefix}.{key}" for key, name in names.items())
    if not prefix or not own or arguments["training"]:
        return None
    return {
        "kind": "batch_norm",
        "args": [encode(arguments["input"])],
        "tensors": names,
        # In evaluation mode torch hands on 0 for `momentum=None`, a plain average over all batches.
        "momentum": arguments["momentum"] or None,
        "eps": arguments["eps"],
    }


def _dropout(node: fx.Node, _: Trace) -> dict[str, Any]:
    # The in-place spelling calls its first argument `self`; both come first.
    return {
        "kind": "dropout",
        "args": [encode(node.args[0])],
        "p": schema_arguments(node)["p"],
        "channels": operator_name(node.target) == "feature_dropout",
    }


def _module(node: fx.Node, trace: Trace) -> dict[str, Any] | None:
    make = MODULES.get(operator_name(node.target)) if node.op == "call_function" else None
    return make(node, trace) if make is not None else None


MODULES: dict[str, Callable[[fx.Node, Trace], dict[str, Any] | None]] = {
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "feature_dropout": _dropout,
}


# --- values as JSON ------------------------------------------------------------------------------


def encode(value: Any) -> Any:
    """Write an argument as JSON: nodes become `{"node": name}`, torch's constants their names."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, Scaled):
        return {"node": value.node.name, "times": value.times, "over": value.over}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, _DATA_TYPES):
        return {"torch": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"an argument of type {type(value).__name__} cannot be written into a graph",
        code="NOT_WRITABLE",
        hint="report this model; module mode (a known architecture) does not need it",
    )
