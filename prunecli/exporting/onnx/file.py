"""A network as one ONNX file: dynamic batch, no wasted weight, checked before it is in place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import re
import warnings
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import nn

from prunecli.atomic import atomic_write
from prunecli.cost.sizes import tensor_bytes
from prunecli.errors import GraphError, InputError
from prunecli.exporting.formats import Written
from prunecli.exporting.onnx.metadata import encode_metadata
from prunecli.exporting.onnx.parity import device_of, dtype_of
from prunecli.graph.tracing.running import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from prunecli.architectures.reference import InputSpec

# The exporter's own operator set: other numbers are reached by a conversion that may fail, and
# every runtime of the last years reads this one.
DEFAULT_OPSET = 18
# Protocol buffers end at 2 GiB; the room left is for the graph around the weights.
EMBED_LIMIT = 2**31 - 2**24
# Shapes and axes that the exporter writes as constants; real waste is whole weights.
_SHAPE_CONSTANTS = 4096


def to_onnx(
    model: nn.Module,
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    classes: tuple[str, ...] | None = None,
    embed_limit: int = EMBED_LIMIT,
    prove: Callable[[Path], None] | None = None,
) -> Written:
    """Write `model` as ONNX: input `input` `[batch, C, H, W]`, output `logits`, batch dynamic.

    `metadata` is provenance; the input and the `classes` are added to it. `prove` is called with
    the finished file before it takes its place, so that nothing is written if it raises. Weights
    above `embed_limit` bytes go into `<path>.data`. The same model gives the same bytes. Raises
    `GraphError` (`EXPORT_FAILED`, `EXPORT_BLOATED`), `InputError` (`BAD_OPSET`,
    `UNWRITABLE_OUTPUT`).
    """
    proto = build_proto(model, input=input, opset=opset or DEFAULT_OPSET)
    properties = encode_metadata(input, classes=classes, provenance=metadata or {})
    onnx.helper.set_model_props(proto, properties)
    write = _write_beside if initializer_bytes(proto.graph) > embed_limit else _write_embedded
    return write(proto, path, prove or _accept)


def build_proto(model: nn.Module, *, input: InputSpec, opset: int) -> Any:  # noqa: A002
    """Return the `onnx.ModelProto` of `model` without weights that the model does not have.

    Constant folding can blow a small table up into a large tensor; then the unfolded graph is
    taken, and if that holds more than the model as well, `GraphError` (`EXPORT_BLOATED`) says so.
    """
    newest = onnx.defs.onnx_opset_version()
    if not DEFAULT_OPSET <= opset <= newest:
        raise InputError(
            f"opset {opset} cannot be written",
            code="BAD_OPSET",
            hint=f"give an --opset from {DEFAULT_OPSET} to {newest}, or none",
        )
    allowed = model_bytes(model) + _SHAPE_CONSTANTS
    held = 0
    for optimize in (True, False):
        proto = _trace(model, input, opset=opset, optimize=optimize)
        _tidy(proto)
        held = initializer_bytes(proto.graph)
        if held <= allowed:
            return proto
    raise GraphError(
        f"the exported graph holds {held} bytes of weights, the model only {allowed}",
        code="EXPORT_BLOATED",
        hint="register constants that the forward computes as buffers",
    )


def model_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, shared ones counted once."""
    return tensor_bytes((*model.parameters(), *model.buffers()))


def initializer_bytes(graph: Any) -> int:
    """Return the bytes of every constant tensor in a graph and in the graphs inside it."""
    total = sum(_tensor_bytes(tensor) for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            total += _tensor_bytes(attribute.t) if attribute.HasField("t") else 0
            total += sum(_tensor_bytes(tensor) for tensor in attribute.tensors)
            total += sum(initializer_bytes(inner) for inner in _subgraphs(attribute))
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
        _rename_inputs_(graph, renamed)


def _trace(model: nn.Module, spec: InputSpec, *, opset: int, optimize: bool) -> Any:
    # A batch of two: torch.export would take a batch of one for a constant.
    example = torch.zeros(2, *spec.shape, dtype=dtype_of(model), device=device_of(model))
    with evaluating(model), _no_chatter(), torch.no_grad():
        try:
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                optimize=optimize,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:
            raise _export_failed(error) from error
    assert program is not None
    proto = program.model_proto
    _check_interface(proto, opset=opset)
    return proto


def _check_interface(proto: Any, *, opset: int) -> None:
    written = _opset(proto)
    if written != opset:
        raise InputError(
            f"opset {opset} cannot be written: the exporter stayed at {written}",
            code="BAD_OPSET",
            hint=f"use --opset {written}, or none",
        )
    ends = [*proto.graph.input, *proto.graph.output]
    if any(_fixes_batch(end.type.tensor_type.shape) for end in ends):
        raise GraphError(
            "the forward fixes the batch size, so the ONNX file would take one batch size only",
            code="EXPORT_FAILED",
            hint="use x.shape[0] or flatten(1) in the forward, not a number",
        )


def _fixes_batch(shape: Any) -> bool:
    return len(shape.dim) == 0 or shape.dim[0].HasField("dim_value")


@contextmanager
def _no_chatter() -> Iterator[None]:
    """Keep the exporter's notes off the screen; what goes wrong comes out as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_OPERATOR = re.compile(r"OpOverload\(op='([^']+)', overload='([^']+)'\)")
_NODE = re.compile(r"translating node %(\w+)")
_LINE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')


def _export_failed(error: BaseException) -> GraphError:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    text = "\n".join(str(item) for item in chain)
    reason = next((line for line in str(chain[-1]).splitlines() if line.strip()), "no reason given")
    operator = _OPERATOR.search(text)
    node = _NODE.search(text)
    line = _LINE.findall(text)
    places = [
        f"operator {operator[1]}.{operator[2]}" if operator else "",
        f"node {node[1]}" if node else "",
        "{}:{} in {}".format(*line[-1]) if line else "",
    ]
    return GraphError(
        f"the model cannot be exported to ONNX: {type(chain[-1]).__name__}: {reason}",
        code="EXPORT_FAILED",
        where=", ".join(place for place in places if place) or None,
        hint="replace this operation in the forward, or try another --opset",
    )


def _tidy(proto: Any) -> None:
    """Drop what is not the network: paths of source files, stack traces, second copies."""
    deduplicate_(proto.graph)
    _forget_origin_(proto.graph)
    for function in proto.functions:
        _forget_origin_(function)
    proto.doc_string = ""
    proto.producer_name, proto.producer_version = "prunecli", version("prunecli")
    del proto.metadata_props[:]


def _forget_origin_(graph: Any) -> None:
    groups = ("input", "output", "value_info", "initializer", "node")
    items = [item for name in groups for item in getattr(graph, name, ())]
    for item in [graph, *(item for item in items if not isinstance(item, str))]:
        item.doc_string = ""
        del item.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _subgraphs(attribute):
                _forget_origin_(inner)


def _rename_inputs_(graph: Any, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
        for attribute in node.attribute:
            for inner in _subgraphs(attribute):
                _rename_inputs_(inner, renamed)


def _subgraphs(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _content(tensor: Any) -> bytes:
    return bytes(onnx.numpy_helper.to_array(tensor).tobytes())


def _tensor_bytes(tensor: Any) -> int:
    return len(tensor.raw_data) or len(_content(tensor))


def _opset(proto: Any) -> int:
    return next(int(item.version) for item in proto.opset_import if item.domain in {"", "ai.onnx"})


def _accept(_: Path) -> None:
    """Ask for no proof."""


def _write_embedded(proto: Any, path: Path, prove: Callable[[Path], None]) -> Written:
    data = proto.SerializeToString(deterministic=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
        _check(temporary)
        prove(temporary)
    return Written(path, len(data), opset=_opset(proto))


def _write_beside(proto: Any, path: Path, prove: Callable[[Path], None]) -> Written:
    weights = path.with_name(f"{path.name}.data")
    # The weights take their place first (the inner block ends first): a kill in between leaves the
    # old graph beside the new weights; two files cannot do better.
    with atomic_write(path) as temporary, atomic_write(weights) as data:
        data.unlink()  # onnx appends to a file that is there
        onnx.save_model(
            proto,
            str(temporary),
            format="protobuf",
            save_as_external_data=True,
            location=data.name,
            size_threshold=1024,
        )
        _check(temporary)
        prove(temporary)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = weights.name if entry.key == "location" else entry.value
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
        size = temporary.stat().st_size + data.stat().st_size
    return Written(path, size, opset=_opset(proto))


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise unusable(error) from error


def unusable(reason: object) -> GraphError:
    """Return the error of a file that ONNX or its runtime refuses."""
    return GraphError(
        f"the exported file cannot be used: {reason}",
        code="EXPORT_FAILED",
        hint="nothing was written; try another --opset, or report the model",
    )
