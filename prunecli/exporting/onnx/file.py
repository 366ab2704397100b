"""A network as one ONNX file: dynamic batch, no wasted weight, checked before it is in place."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import onnx

from prunecli.architectures.examples import named_for
from prunecli.atomic import atomic_write
from prunecli.cost.sizes import tensor_bytes
from prunecli.errors import GraphError, InputError
from prunecli.exporting.formats import Written
from prunecli.exporting.onnx.capture import capture
from prunecli.exporting.onnx.failures import unusable
from prunecli.exporting.onnx.metadata import encode_metadata
from prunecli.exporting.onnx.tidy import initializer_bytes
from prunecli.exporting.onnx.translate import (
    DEFAULT_OPSET,
    Translated,
    translate,
    written_opset,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.inputs import InputSpec

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
    dynamic_size: bool = False,
    embed_limit: int = EMBED_LIMIT,
    prove: Callable[[Path], None] | None = None,
) -> Written:
    """Write `model` as ONNX, with a batch of any size where its forward allows one.

    One batch of images is called `input`, other arguments as the parameters of the forward. Outputs
    are called by keys, fields and positions (`logits`, `boxes`, `out.1.0`), the only one `logits`.
    With `dynamic_size` the sides of images are free too. What is less than that is in the notes.

    `metadata` is provenance; the input and the `classes` are added to it. `prove` is called with
    the finished file before it takes its place, so that nothing is written if it raises. Weights
    above `embed_limit` bytes go into `<path>.data`. The same model gives the same bytes. Raises
    `GraphError` (`EXPORT_FAILED`, `EXPORT_BLOATED`, `SIZE_FIXED`), `InputError` (`BAD_OPSET`,
    `UNWRITABLE_OUTPUT`).
    """
    built = build_proto(model, input=input, opset=opset, dynamic_size=dynamic_size)
    proto = built.proto
    spec = named_for(input, model)
    properties = encode_metadata(spec, classes=classes, provenance=metadata or {})
    onnx.helper.set_model_props(proto, properties)
    write = _write_beside if initializer_bytes(proto.graph) > embed_limit else _write_embedded
    written = write(proto, path, prove or _accept)
    return dataclasses.replace(written, notes=built.notes)


def build_proto(
    model: nn.Module,
    *,
    input: InputSpec,  # noqa: A002
    opset: int | None = None,
    dynamic_size: bool = False,
) -> Translated:
    """Return `model` as ONNX without weights that the model does not have.

    Constant folding can blow a small table up into a large tensor; then the unfolded graph is
    taken, and if that holds more than the model as well, `GraphError` (`EXPORT_BLOATED`) says so.
    """
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not DEFAULT_OPSET <= opset <= newest:
        raise InputError(
            f"opset {opset} cannot be written",
            code="BAD_OPSET",
            hint=f"give an --opset from {DEFAULT_OPSET} to {newest}, or none",
        )
    captured = capture(model, named_for(input, model), dynamic_size=dynamic_size)
    allowed = model_bytes(model) + _SHAPE_CONSTANTS
    held = 0
    for optimize in (True, False):
        found = translate(captured, opset=opset, optimize=optimize)
        held = initializer_bytes(found.proto.graph)
        if held <= allowed:
            return dataclasses.replace(found, notes=(*captured.notes, *found.notes))
    raise GraphError(
        f"the exported graph holds {held} bytes of weights, the model only {allowed}",
        code="EXPORT_BLOATED",
        hint="register constants that the forward computes as buffers",
    )


def model_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, shared ones counted once."""
    return tensor_bytes((*model.parameters(), *model.buffers()))


def _accept(_: Path) -> None:
    """Ask for no proof."""


def _write_embedded(proto: Any, path: Path, prove: Callable[[Path], None]) -> Written:
    data = proto.SerializeToString(deterministic=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
        _check(temporary)
        prove(temporary)
    return Written(path, len(data), opset=written_opset(proto))


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
    return Written(path, size, opset=written_opset(proto))


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise unusable(error) from error
