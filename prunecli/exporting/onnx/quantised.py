"""In which precision an ONNX graph computes, by its operators: float32, FP16 or INT8."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx

from prunecli.report import PrecisionInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
INTEGER = frozenset(
    {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "QAttention"}
    | {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM"}
)
"""Layers that compute with integers by themselves, without operators around them that say so."""

_BETWEEN = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant"})
_FLOATS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.BFLOAT16: "BF16",
}


def precision_of(model: Any) -> PrecisionInfo:
    """Return the precision of an `onnx.ModelProto` and how many of its operators have it.

    An operator computes in INT8 where all that it reads, but for constants, is dequantised right
    before: a runtime joins the two to one integer kernel.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    counted = [node for node in graph.node if node.op_type not in _BETWEEN]
    integer = [node for node in counted if _in_integers(node, dequantised, constants)]
    layers = [node for node in counted if node.op_type in LAYERS | INTEGER]
    return PrecisionInfo(
        name="INT8" if integer else _float_name(graph.initializer),
        operators=len(counted),
        int8_operators=len(integer),
        layers=len(layers),
        int8_layers=sum(node in integer for node in layers),
    )


def _in_integers(node: Any, dequantised: set[str], constants: set[str]) -> bool:
    if node.op_type in INTEGER or node.op_type.startswith("QLinear"):
        return True
    read = [name for name in node.input if name and name not in constants]
    return bool(read) and all(name in dequantised for name in read)


def _float_name(weights: Iterable[Any]) -> str:
    """Return the type of most of the floating-point numbers."""
    sizes = Counter[str]()
    for tensor in weights:
        if tensor.data_type in _FLOATS:
            sizes[_FLOATS[tensor.data_type]] += math.prod(tensor.dims)
    return sizes.most_common(1)[0][0] if sizes else "float32"
