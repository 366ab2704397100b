"""What an ONNX graph costs for one image: multiply-adds and weights, from its shapes alone.

Counted as for networks (`prunecli.cost.flops`), on the graph as it stands in the file: a batch norm
that the exporter has folded into its convolution costs nothing any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from prunecli.errors import first_line

if TYPE_CHECKING:
    from collections.abc import Iterable

Shape = tuple[int, ...]
Rule = Callable[[Any, Sequence[Shape], Shape], float]

_LARGEST_TABLE = 4096
"""Numbers of a constant that shapes may follow from; weights are left out of the inference."""


@dataclass(frozen=True)
class GraphCost:
    """Costs of a graph; `flops` is None where its shapes are not known, `why` then says why.

    `params` counts the numbers of all weights, quantised ones as others, and `bytes` those of all
    constants.
    `not_counted` are the kinds of operators that nothing is known of and that may be dear.
    """

    flops: float | None
    params: int
    bytes: int
    dtypes: Mapping[str, int]
    operators: Mapping[str, int]
    not_counted: tuple[str, ...]
    why: str = ""


def graph_cost(model: Any, *, image: tuple[int, int, int] | None) -> GraphCost:
    """Return the costs of an `onnx.ModelProto` for a batch of one image.

    `image` is its channels, height and width; None takes the shape that the file has for its input.
    """
    weights = [*_initializers(model.graph)]
    is_parameter = _parameters(model.graph)
    sizes = Counter[str]()
    for weight in weights:
        sizes[type_name(weight.data_type)] += math.prod(weight.dims)
    shapes, why = _inferred(model, image)
    flops, unknown = _flops(model.graph.node, shapes) if shapes is not None else (None, set())
    return GraphCost(
        flops=flops,
        params=sum(math.prod(w.dims) for w in weights if is_parameter(w)),
        bytes=sum(math.prod(w.dims) * _itemsize(w.data_type) for w in weights),
        dtypes=dict(sizes),
        operators=dict(Counter(node.op_type for node in model.graph.node)),
        not_counted=tuple(sorted(unknown)),
        why=why if flops is not None or why else "a shape in the graph is not known",
    )


def type_name(data_type: int) -> str:
    """Return the name of a type of ONNX, as torch has it.

    >>> type_name(1), type_name(10), type_name(7)
    ('float32', 'float16', 'int64')
    """
    names = {1: "float32", 11: "float64", 14: "complex64", 15: "complex128"}
    known: str = onnx.TensorProto.DataType.Name(data_type).lower()
    return names.get(data_type, known)


_QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})


def _parameters(graph: Any) -> Callable[[Any], bool]:
    """Return what tells weights from other constants: shapes, and scales of quantised tensors."""
    nodes = [node for node in graph.node if node.op_type in _QUANTISING]
    scales = {name for node in nodes for name in node.input[1:]}
    stored = {node.input[0] for node in nodes if node.op_type == "DequantizeLinear"}

    def is_parameter(tensor: Any) -> bool:
        kind = type_name(tensor.data_type)
        packed = kind.lstrip("u").startswith(("int8", "int4")) and len(tensor.dims) > 1
        return tensor.name in stored or packed or ("float" in kind and tensor.name not in scales)

    return is_parameter


def _itemsize(data_type: int) -> int:
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (KeyError, ValueError, TypeError):
        return 1


def _initializers(graph: Any) -> Iterable[Any]:
    """Yield the constants of a graph: those beside the nodes, and those in nodes of their own."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def _inferred(
    model: Any, image: tuple[int, int, int] | None
) -> tuple[dict[str, Shape] | None, str]:
    """Return the shape of every value that has one, or why there are none."""
    slim = onnx.ModelProto()
    slim.CopyFrom(_without_weights(model))
    for value in slim.graph.input[:1]:
        _fix_input_(value, image)
    del slim.graph.value_info[:]
    for value in slim.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        found = onnx.shape_inference.infer_shapes(slim, data_prop=True)
    except Exception as error:  # noqa: BLE001 - shapes are a help; a graph of anybody may have none
        return None, first_line(error)
    shapes = {weight.name: tuple(weight.dims) for weight in slim.graph.initializer}
    for value in (*found.graph.input, *found.graph.value_info, *found.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(int(dim.dim_value) for dim in dims)
    return shapes, ""


def _without_weights(model: Any) -> Any:
    """Return a graph whose large constants have a type and a shape, and no numbers."""
    slim = onnx.ModelProto()
    slim.ir_version = model.ir_version
    slim.opset_import.extend(model.opset_import)
    slim.functions.extend(model.functions)
    graph = slim.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    given = {value.name for value in model.graph.input}
    for weight in model.graph.initializer:
        if math.prod(weight.dims) <= _LARGEST_TABLE and not weight.external_data:
            graph.initializer.append(weight)
        elif weight.name not in given:
            graph.input.append(
                onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
            )
    return slim


def _fix_input_(value: Any, image: tuple[int, int, int] | None) -> None:
    """Make the input a batch of one image."""
    dims = value.type.tensor_type.shape.dim
    sizes = (1, *image) if image is not None and len(dims) == 4 else None
    for at, dim in enumerate(dims):
        if dim.HasField("dim_value") and at > 0:
            continue
        if sizes is not None:
            dim.dim_value = sizes[at]
        elif at == 0:
            dim.dim_value = 1


def _flops(nodes: Iterable[Any], shapes: Mapping[str, Shape]) -> tuple[float | None, set[str]]:
    total, unknown = 0.0, set[str]()
    for node in nodes:
        rule = RULES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        if rule is None:
            foreign = node.domain not in {"", "ai.onnx"} or node.op_type in _DEAR
            unknown |= {node.op_type} if foreign else set()
            continue
        inputs = [shapes.get(name) for name in node.input if name]
        output = shapes.get(node.output[0])
        known = [shape for shape in inputs if shape is not None]
        if output is None or len(known) < len(inputs):
            return None, unknown
        total += rule(node, known, output)
    return total, unknown


def _convolution(_: Any, inputs: Sequence[Shape], output: Shape) -> float:
    weight = inputs[1]
    return math.prod(weight) * output[0] * math.prod(output[2:])


def _transposed(_: Any, inputs: Sequence[Shape], __: Shape) -> float:
    source, weight = inputs[:2]
    return math.prod(weight) * source[0] * math.prod(source[2:])


def _gemm(node: Any, inputs: Sequence[Shape], output: Shape) -> float:
    turned = any(item.name == "transA" and item.i for item in node.attribute)
    return math.prod(output) * inputs[0][0 if turned else 1]


def _matmul(_: Any, inputs: Sequence[Shape], output: Shape) -> float:
    return math.prod(output) * inputs[0][-1]


def _per_element(scale: float) -> Rule:
    return lambda _, __, output: scale * math.prod(output)


def _per_input(_: Any, inputs: Sequence[Shape], __: Shape) -> float:
    return float(math.prod(inputs[0]))


RULES: Mapping[str, Rule] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _per_element(2.0),
    "LayerNormalization": _per_element(5.0),
    "GroupNormalization": _per_element(5.0),
    "InstanceNormalization": _per_element(5.0),
    "GlobalAveragePool": _per_input,
}
"""Multiply-adds of an operator from the shapes of its inputs and of its output."""

_DEAR = frozenset(
    {"Attention", "Einsum", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
    | {"GRU", "LSTM", "RNN", "If", "Loop", "Scan", "DeformConv", "DFT", "STFT"}
)
"""Operators that may take most of the time and whose multiply-adds are not counted."""
