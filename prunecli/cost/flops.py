"""FLOPs and activations of single operators, as terms in the sizes of their dimensions.

One FLOP is one multiply-add, as fvcore counts: convolutions, linear layers and matrix products by
their multiply-adds, batch norm by 2 and other norms by 5 per element, adaptive average pooling by 1
per input element, upsampling by its output. Everything else is listed as not counted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from prunecli.graph.operators import (
    ATTENTION,
    CHANNEL_NORMS,
    CONCATENATIONS,
    CONTRACTIONS,
    CONVOLUTIONS,
    DEFORMABLE_CONVOLUTIONS,
    EXPANSIONS,
    GROUP_NORMS,
    LAYER_NORMS,
    LAYERS,
    LINEAR,
    MATRIX_PRODUCTS,
    MOVES,
    PADS,
    SUMMED_PRODUCTS,
    TRANSPOSED_CONVOLUTIONS,
    is_pointwise,
    operator_name,
    schema_arguments,
    shape_of,
)
from prunecli.graph.rules.compute import einsum_letters
from prunecli.graph.tracing.record import AGAIN
from prunecli.registry import Registry

if TYPE_CHECKING:
    from prunecli.graph.tracing.trace import Trace

Dim = tuple[str, int]
"""One dimension of a value of the traced graph, by node name, or of a stored tensor."""


@dataclass(frozen=True)
class Term:
    """`coefficient` times the product of the sizes of some dimensions."""

    node: str
    coefficient: float
    dims: tuple[Dim, ...]


CostRule = Callable[[fx.Node, Mapping[str, Any], Any], list[Term]]
"""From an operator, its arguments by name and the symbol of the batch to its FLOPs."""

FLOP_RULES: Registry[CostRule] = Registry("flop count")

NOT_COUNTED_BUT_CHEAP = (
    MOVES
    | CONCATENATIONS
    | EXPANSIONS
    | PADS
    | {"arange", "clone", "dropout", "getitem", "stack", "sym_size", "_assert_tensor_metadata"}
)
"""Operators that move data without arithmetic; leaving them out is no omission."""

COUNTS_ACTIVATIONS = LAYERS | DEFORMABLE_CONVOLUTIONS | CONTRACTIONS
"""Operators whose outputs count as activations, as in fvcore."""


def graph_terms(trace: Trace) -> tuple[list[Term], list[Term], dict[str, int]]:
    """Return the FLOPs and activations of a graph, and how often each operator is not counted."""
    flops: list[Term] = []
    activations: list[Term] = []
    missing: dict[str, int] = {}
    for node in trace.graph.nodes:
        if node.op != "call_function" or AGAIN in node.meta:
            continue
        name = operator_name(node.target)
        terms = operator_terms(node, trace.batch)
        if terms is not None:
            flops.extend(terms)
        elif name not in NOT_COUNTED_BUT_CHEAP and isinstance(node.meta.get("val"), Tensor):
            kind = "pointwise" if is_pointwise(node.target) else name
            missing[kind] = missing.get(kind, 0) + 1
        if name in COUNTS_ACTIVATIONS:
            activations.append(Term(node.name, 1.0, _all(node, len(shape_of(node, trace.batch)))))
    return flops, activations, missing


def operator_terms(node: fx.Node, batch: Any) -> list[Term] | None:
    """Return the FLOPs of one operator; None where it is not counted.

    It is not where nothing says how, or what does so does not understand this call.
    """
    name = operator_name(node.target)
    if name not in FLOP_RULES:
        return None
    ranks = {
        value.name: value.meta["val"].dim()
        for value in (node, *node.all_input_nodes)
        if isinstance(value.meta.get("val"), Tensor)
    }
    try:
        terms = FLOP_RULES.get(name)(node, schema_arguments(node), batch)
        known = all(dim < ranks[value] for term in terms for value, dim in term.dims)
    except Exception:  # noqa: BLE001 - a rule may be anybody's; its operator is listed instead
        return None
    return terms if known else None


def count_flops(model: nn.Module, example: tuple[Tensor, ...]) -> float:
    """Return the FLOPs of a module for `example`, as fvcore counts them on the module itself."""
    # fvcore traces with torch.jit, whose deprecation is no news to the user.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, example)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return float(analysis.total())


# --- the operators -------------------------------------------------------------------------------


def _count(*operators: str, summary: str) -> Callable[[CostRule], CostRule]:
    def register(function: CostRule) -> CostRule:
        for operator in sorted(operators):
            FLOP_RULES.add(operator, function, summary=summary, source="fvcore.nn.jit_handles")
        return function

    return register


@_count(
    *CONVOLUTIONS,
    *DEFORMABLE_CONVOLUTIONS,
    summary="Output positions times elements of the weight.",
)
def _convolution(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    weight = arguments["weight"]
    kernel = shape_of(weight, batch)[2:]
    positions = _positions(node, len(shape_of(node, batch)), len(kernel))
    return [Term(node.name, math.prod(kernel), ((weight.name, 0), (weight.name, 1), *positions))]


def _positions(node: fx.Node, rank: int, spatial: int) -> tuple[Dim, ...]:
    """Return all dimensions of an image but its channels; some may hold channels of other layers.

    Leading ones count too: frames, windows or boxes may lie beside the batch in them.
    """
    return tuple(dim for at, dim in enumerate(_all(node, rank)) if at != rank - spatial - 1)


@_count(*TRANSPOSED_CONVOLUTIONS, summary="Input positions times elements of the weight.")
def _transposed(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    weight = arguments["weight"]
    kernel = shape_of(weight, batch)[2:]
    source = arguments["input"]
    positions = _positions(source, len(shape_of(source, batch)), len(kernel))
    return [Term(node.name, math.prod(kernel), ((weight.name, 0), (weight.name, 1), *positions))]


@_count(*LINEAR, summary="Rows times inputs times outputs.")
def _linear(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    source, weight = arguments["input"], arguments["weight"].name
    rows = _all(source, len(shape_of(source, batch)) - 1)
    return [Term(node.name, 1.0, (*rows, (weight, 0), (weight, 1)))]


@_count(*MATRIX_PRODUCTS, summary="Elements of the first factor times columns of the second.")
def _matmul(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    first, second = list(arguments.values())[:2]
    rank = len(shape_of(first, batch))
    columns = len(shape_of(second, batch)) - 1
    return [Term(node.name, 1.0, (*_all(first, rank), (second.name, columns)))]


@_count(*SUMMED_PRODUCTS, summary="The matrix product, without the sum.")
def _matmul_and_sum(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    return _matmul(node, dict(list(arguments.items())[1:]), batch)


@_count("einsum", summary="The product of the sizes of all letters.")
def _einsum(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    tensors = arguments["tensors"]
    shapes = [shape_of(tensor, batch) for tensor in tensors]
    operands, _ = einsum_letters(arguments["equation"], [len(shape) for shape in shapes])
    dims: dict[str, Dim] = {}
    for tensor, shape, letters in zip(tensors, shapes, operands, strict=True):
        for at, letter in enumerate(letters):
            if letter not in dims or shape[at] > 1:
                dims[letter] = (tensor.name, at)
    return [Term(node.name, 1.0, tuple(dims.values()))]


@_count(*ATTENTION, summary="Its two matrix products (fvcore counts none).")
def _attention(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    # Keys and values may have fewer dimensions than queries, which then are the same for all.
    rank, last = len(shape_of(query, batch)), len(shape_of(value, batch)) - 1
    positions = (key.name, len(shape_of(key, batch)) - 2)
    return [
        Term(node.name, 1.0, (*_all(query, rank), positions)),
        Term(node.name, 1.0, (*_all(query, rank - 1), positions, (value.name, last))),
    ]


@_count("batch_norm", summary="2 per element with an affine part, else 1.")
def _batch_norm(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    scale = 1.0 if arguments["weight"] is None else 2.0
    return [Term(node.name, scale, _all(node, len(shape_of(node, batch))))]


@_count(
    *LAYER_NORMS,
    *GROUP_NORMS,
    *CHANNEL_NORMS - {"batch_norm"},
    summary="5 per element, else 4.",
)
def _norm(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    scale = 4.0 if arguments["weight"] is None else 5.0
    return [Term(node.name, scale, _all(node, len(shape_of(node, batch))))]


@_count("adaptive_avg_pool2d", summary="1 per element of the input.")
def _adaptive_pool(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    source = arguments.get("self") or arguments["input"]
    return [Term(node.name, 1.0, _all(source, len(shape_of(source, batch))))]


@_count("upsample_nearest2d", summary="1 per element of the output.")
def _nearest(node: fx.Node, _: Mapping[str, Any], batch: Any) -> list[Term]:
    return [Term(node.name, 1.0, _all(node, len(shape_of(node, batch))))]


@_count("upsample_bilinear2d", summary="4 per element of the output.")
def _bilinear(node: fx.Node, _: Mapping[str, Any], batch: Any) -> list[Term]:
    return [Term(node.name, 4.0, _all(node, len(shape_of(node, batch))))]


def _all(node: fx.Node, rank: int) -> tuple[Dim, ...]:
    return tuple((node.name, dim) for dim in range(rank))
