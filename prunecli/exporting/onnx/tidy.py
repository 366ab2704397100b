"""Edits of an ONNX graph that change nothing of what it computes, and the weights that it holds."""

from __future__ import annotations

import hashlib
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import onnx

_SYMBOL = re.compile(r"\b[su]\d+\b")

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def tidy_(proto: Any) -> None:
    """Drop what is not the network: paths of source files, stack traces, second copies."""
    deduplicate_(proto.graph)
    _forget_origin_(proto.graph)
    for function in proto.functions:
        _forget_origin_(function)
    proto.doc_string = ""
    proto.producer_name, proto.producer_version = "prunecli", version("prunecli")
    del proto.metadata_props[:]


def initializer_bytes(graph: Any) -> int:
    """Return the bytes of every constant tensor in a graph and in the graphs inside it."""
    total = sum(_tensor_bytes(tensor) for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            total += _tensor_bytes(attribute.t) if attribute.HasField("t") else 0
            total += sum(_tensor_bytes(tensor) for tensor in attribute.tensors)
            total += sum(initializer_bytes(inner) for inner in subgraphs(attribute))
    return total


def deduplicate_(graph: Any) -> None:
    """Keep one of several equal initialisers and point every use at it, in place."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        digest = hashlib.sha256(tensor.raw_data or _content(tensor)).digest()
        key = (tensor.data_type, tuple(tensor.dims), digest)
        if key in first and tensor.name not in {value.name for value in graph.output}:
            renamed[tensor.name] = first[key]
        else:
            first.setdefault(key, tensor.name)
            kept.append(tensor)
    if renamed:
        unique = [onnx.TensorProto.FromString(item.SerializeToString()) for item in kept]
        del graph.initializer[:]
        graph.initializer.extend(unique)
        rename_inputs_(graph, renamed)


def name_ends_(
    graph: Any, inputs: Sequence[str], outputs: Sequence[str], sizes: Mapping[str, str]
) -> None:
    """Give the ends and the free sizes of a graph their names, in place.

    In ONNX a name stands for one value: an output that is called as an input is called `out.NAME`,
    and a weight or a value in between gives its name up.
    """
    final = [*inputs, *(f"out.{name}" if name in inputs else name for name in outputs)]
    ends = [value.name for value in (*graph.input, *graph.output)]
    present = set(_names(graph)) - set(ends)
    _rename_(graph, {name: _fresh(name, present) for name in final if name in present})
    _rename_(graph, dict(zip(ends, final, strict=True)))
    _name_sizes_(graph, sizes)


def _fresh(name: str, present: set[str]) -> str:
    number = next(at for at in range(1, len(present) + 2) if f"{name}_value_{at}" not in present)
    return f"{name}_value_{number}"


def _names(graph: Any) -> Iterator[str]:
    """Yield every name of a value in a graph and in those inside of it."""
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                yield from (value.name for value in inner.input)
                yield from _names(inner)


def _rename_(graph: Any, renamed: Mapping[str, str]) -> None:
    """Rename values wherever they are made, read or described, in place."""
    if not renamed:
        return
    for field in ("input", "output", "value_info", "initializer"):
        for item in getattr(graph, field):
            item.name = renamed.get(item.name, item.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = renamed.get(name, name)
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                _rename_(inner, renamed)


def _name_sizes_(graph: Any, sizes: Mapping[str, str]) -> None:
    """Write the names of free sizes in place of torch's symbols, also inside of expressions."""
    unknown: dict[str, str] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _SYMBOL.sub(
                    lambda found: _size_name(found[0], sizes, unknown), dim.dim_param
                )


def _size_name(symbol: str, sizes: Mapping[str, str], unknown: dict[str, str]) -> str:
    if symbol in sizes:
        return sizes[symbol]
    if symbol.startswith("u"):  # it depends on values: the number of boxes found
        return unknown.setdefault(symbol, f"found_{len(unknown) + 1}")
    return symbol


def rename_inputs_(graph: Any, renamed: Mapping[str, str]) -> None:
    """Let all nodes of a graph read other values, in place."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                rename_inputs_(inner, renamed)


def _forget_origin_(graph: Any) -> None:
    groups = ("input", "output", "value_info", "initializer", "node")
    items = [item for name in groups for item in getattr(graph, name, ())]
    for item in [graph, *(item for item in items if not isinstance(item, str))]:
        item.doc_string = ""
        del item.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                _forget_origin_(inner)


def subgraphs(attribute: Any) -> list[Any]:
    """Return the graphs in an attribute of a node."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _content(tensor: Any) -> bytes:
    return bytes(onnx.numpy_helper.to_array(tensor).tobytes())


def _tensor_bytes(tensor: Any) -> int:
    return len(tensor.raw_data) or len(_content(tensor))
