"""Static INT8 quantisation of an ONNX file: calibrated, judged, sensitive layers left in float."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from prunecli.errors import GraphError, InputError
from prunecli.exporting.onnx.file import to_onnx
from prunecli.exporting.onnx.precision.calibration import (
    CALIBRATIONS,
    activation_ranges,
    ranges_of_noise,
)
from prunecli.exporting.onnx.precision.judge import Judge
from prunecli.exporting.onnx.precision.layers import Layer, fewest, find_layers, name_nodes_
from prunecli.exporting.onnx.precision.writing import write_converted
from prunecli.exporting.onnx.tidy import deduplicate_
from prunecli.exporting.precision import Request
from prunecli.progress import Step
from prunecli.report import CalibrationTrial, Conversion

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.exporting.onnx.precision.judge import Judgement
    from prunecli.exporting.precision import Examples

OPERATORS = sorted({*QDQRegistry, *QLinearOpsRegistry})
FULL, REDUCED = 8, 7
METADATA = 4096
"""Bytes that are left for what a file says of itself: classes, history, commands."""

ALONE = 32
"""Images on which the error of a layer that is quantised alone is measured."""


def int8_bytes(model: nn.Module, input: InputSpec) -> int:  # noqa: A002 - as elsewhere
    """Return about the bytes of the INT8 file of a model, rather too many: no image is needed.

    Ranges are those of one random input: a file holds as many, whatever they are.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        to_onnx(model, file, input=input)
        proto = load_model_with_shape_infer(file)
        name_nodes_(proto.graph)
        source = _Source(file, proto, find_layers(proto.graph), Path(folder), Request(input))
        quantised = _quantised(source, ranges_of_noise(file, Path(folder), input))
        deduplicate_(quantised.graph)
        return len(quantised.SerializeToString()) + METADATA


@dataclass(frozen=True)
class _Source:
    """A float file, and where drafts are put."""

    file: Path
    proto: Any
    layers: tuple[Layer, ...]
    folder: Path
    request: Request


@dataclass(frozen=True)
class _Draft:
    """One way to calibrate: activation `ranges`, and what came of all layers in INT8."""

    method: str
    ranges: Any
    judgement: Judgement


def convert_to_int8(file: Path, target: Path, request: Request) -> Conversion:
    """Write a float ONNX file in INT8 (QDQ: weights per channel, uint8 activations) to `target`.

    Every calibration is tried on the examples, and the one that agrees most with float is taken.
    Above `max_drop` layers are left in float, the one with the largest error alone first, as few
    as keep it. Raises `InputError` (`NO_IMAGES`, `NO_CLASSES`), `GraphError`
    (`NOTHING_TO_QUANTISE`).
    """
    examples = request.examples
    if examples is None or not len(examples.calibration):
        raise InputError(
            "INT8 takes images to be calibrated on, and there are none",
            code="NO_IMAGES",
            hint="add --data images/",
        )
    proto = load_model_with_shape_infer(file)
    name_nodes_(proto.graph)
    layers = find_layers(proto.graph)
    if not layers:
        raise GraphError(
            "the model has no convolution and no product with weights to quantise",
            code="NOTHING_TO_QUANTISE",
            where=str(target),
            hint="leave --int8 out",
        )
    judge = Judge(file, examples, request)
    if request.max_drop is not None and not judge.tells_classes:
        raise InputError(
            "the outputs are no scores of classes, so that no drop can be told",
            code="NO_CLASSES",
            where=str(target),
            hint="leave --max-drop out",
        )
    with tempfile.TemporaryDirectory() as folder:
        source = _Source(file, proto, layers, Path(folder), request)
        drafts = _drafts(source, examples, judge)
        best = max(drafts, key=lambda one: (one.judgement.agreement or 0.0, -one.judgement.error))
        left = _left_in_float(source, best, judge)
        model = _quantised(source, best.ranges, left_out=_nodes(left))
    tried = tuple(
        CalibrationTrial(one.method, one.judgement.agreement, one.judgement.error) for one in drafts
    )
    bits = REDUCED if request.reduce_range else FULL
    facts = {
        "precision": "int8",
        "calibration": best.method,
        "calibration_images": len(examples.calibration),
        "weight_bits": bits,
        "layers": len(layers),
        "in_float": [layer.name for layer in left],
    }
    size = write_converted(model, file, target, facts)
    judged = judge.told(target)
    return Conversion(
        precision="int8",
        bytes=size,
        float_bytes=file.stat().st_size,
        error=judged.error,
        agreement=judged.agreement,
        agreement_interval=judged.agreement_interval,
        accuracy=judged.accuracy,
        images=judged.images,
        split=examples.judged.split,
        calibration=best.method,
        calibration_images=len(examples.calibration),
        tried=tried,
        layers=len(layers),
        in_float=tuple(layer.name for layer in left),
        weight_bits=bits,
        notes=_notes(layers, left),
    )


def _drafts(source: _Source, examples: Examples, judge: Judge) -> list[_Draft]:
    """Quantise all layers by every calibration."""
    found = []
    for entry in CALIBRATIONS:
        ranges = activation_ranges(
            source.file, source.folder, entry.value, examples, source.request
        )
        draft = _written(source, _quantised(source, ranges))
        found.append(_Draft(entry.name, ranges, judge.chosen(draft)))
    return found


def _left_in_float(source: _Source, draft: _Draft, judge: Judge) -> Sequence[Layer]:
    """Return as few layers as have to stay in float to keep the drop that is allowed."""
    allowed, drop = source.request.max_drop, draft.judgement.drop
    if allowed is None or drop is None or drop <= allowed:
        return ()
    errors = {}
    for done, layer in enumerate(source.layers):
        alone = _written(source, _quantised(source, draft.ranges, only=layer.nodes))
        errors[layer] = judge.chosen(alone, most=ALONE).error
        source.request.progress(Step("measure layers", done + 1, len(source.layers)))
    order = sorted(source.layers, key=lambda layer: -errors[layer])

    def is_enough(left: Sequence[Layer]) -> bool:
        mixed = _written(source, _quantised(source, draft.ranges, left_out=_nodes(left)))
        found = judge.chosen(mixed).drop
        return found is not None and found <= allowed

    return order[: fewest(order, is_enough)]


def _nodes(layers: Sequence[Layer]) -> list[str]:
    return [name for layer in layers for name in layer.nodes]


def _quantised(
    source: _Source, ranges: Any, *, only: Collection[str] = (), left_out: Collection[str] = ()
) -> Any:
    """Return the graph with some of its nodes in INT8; all that can be, without `only`."""
    proto = onnx.ModelProto()
    proto.CopyFrom(source.proto)
    quantiser = QDQQuantizer(
        proto,
        per_channel=True,
        reduce_range=source.request.reduce_range,
        weight_qType=QuantType.QInt8,
        # Kernels of x86 multiply unsigned by signed: with int8 activations, ONNX Runtime 1.32
        # ran ResNet-20 slower than in float.
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(only),
        nodes_to_exclude=list(left_out),
        op_types_to_quantize=OPERATORS,
        extra_options={},
    )
    quantiser.quantize_model()
    return quantiser.model.model


def _written(source: _Source, proto: Any) -> Path:
    path = source.folder / "draft.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def _notes(layers: Sequence[Layer], left: Sequence[Layer]) -> tuple[str, ...]:
    if len(left) < len(layers):
        return ()
    note = f"all {len(layers)} layers were left in float: nothing less keeps --max-drop"
    return (note,)
