"""What an ONNX file says of its graph: inputs, outputs, operators, versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.exporting.onnx.costs import GraphCost, graph_cost, type_name
from prunecli.exporting.onnx.metadata import (
    OnnxMetadata,
    decode_metadata,
    external_files,
    read_model,
)
from prunecli.exporting.onnx.quantised import precision_of
from prunecli.report import OnnxInfo, ValueInfo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.architectures.reference import InputSpec

OWN = "prunecli."
"""What the keys of our metadata begin with."""


@dataclass(frozen=True)
class OnnxOutline:
    """A graph with what it costs; `bytes` counts weights beside the file too."""

    info: OnnxInfo
    metadata: OnnxMetadata
    cost: GraphCost
    bytes: int
    tensors: int


def onnx_outline(path: Path, *, size: tuple[int, int] | None = None) -> OnnxOutline:
    """Return what an ONNX file says of its graph; raises what `read_metadata` raises.

    `size` is the height and width of images for an input that the file does not fix.
    """
    model = read_model(path)
    properties = {item.key: item.value for item in model.metadata_props}
    metadata = decode_metadata(properties, where=str(path))
    cost = graph_cost(model, image=_image(model, metadata.input, size))
    weights = {initializer.name for initializer in model.graph.initializer}
    foreign = {key: value for key, value in properties.items() if not key.startswith(OWN)}
    beside = sum(file.stat().st_size for file in external_files(model, path))
    version = f" {model.producer_version}" if model.producer_version else ""
    info = OnnxInfo(
        ir_version=int(model.ir_version),
        opsets={item.domain: int(item.version) for item in model.opset_import},
        producer=f"{model.producer_name}{version}",
        inputs=tuple(_value(v) for v in model.graph.input if v.name not in weights),
        outputs=tuple(map(_value, model.graph.output)),
        operators=_by_count(cost.operators),
        metadata=foreign,
        not_counted=cost.not_counted,
        precision=precision_of(model),
    )
    return OnnxOutline(info, metadata, cost, path.stat().st_size + beside, len(weights))


def _image(
    model: Any, spec: InputSpec | None, size: tuple[int, int] | None
) -> tuple[int, int, int] | None:
    """Return channels, height and width of an image, as far as they are told."""
    if spec is not None and not spec.is_images:
        return None
    if spec is not None:
        height, width = size or (spec.height, spec.width)
        return spec.channels, height, width
    first = next(iter(model.graph.input), None)
    dims = [] if first is None else list(first.type.tensor_type.shape.dim)
    if size is None or len(dims) != 4 or not dims[1].HasField("dim_value"):
        return None
    return int(dims[1].dim_value), size[0], size[1]


def _by_count(operators: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(operators.items(), key=lambda pair: (-pair[1], pair[0])))


def _value(value: Any) -> ValueInfo:
    kind = value.type.tensor_type
    shape = tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or "?")
        for dim in kind.shape.dim
    )
    return ValueInfo(value.name, type_name(kind.elem_type), shape)
