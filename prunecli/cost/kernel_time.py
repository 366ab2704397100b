"""The time of a network as a closed form in its widths, by the staircase of a runtime.

It is good for comparing widths of one network, not for telling milliseconds: one speed per kind of
operator, whatever its size. `cost.latency` measures a network's own operators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from prunecli.cost.flops import operator_terms
from prunecli.cost.model import model_sizes
from prunecli.cost.staircase import CONV, DEPTHWISE, ELEMENT, GEMM, KINDS, POINTWISE
from prunecli.graph.operators import (
    ATTENTION,
    CONTRACTIONS,
    CONVOLUTIONS,
    LINEAR,
    MOVES,
    TRANSPOSED_CONVOLUTIONS,
    operator_name,
    schema_arguments,
    shape_of,
)
from prunecli.graph.tracing.record import AGAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import fx

    from prunecli.cost.flops import Dim
    from prunecli.cost.model import Widths
    from prunecli.cost.staircase import Staircase
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

FUSED = frozenset({"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "batch_norm"})
"""What runs as part of the convolution before it."""

DEAR = frozenset({"silu", "silu_", "gelu", "sigmoid", "tanh", "softmax", "hardswish", "mish"})
"""Element-wise operators with an exponential, or as slow."""

DEAR_ELEMENTS = 4.0
"""How many cheap elements an expensive one takes as long as."""


@dataclass(frozen=True)
class _Term:
    """Nanoseconds times the product of what the sizes of some dimensions cost, in `kind`'s stairs.

    A grouped convolution is so many small ones: each size is shared by `groups`, the product not.
    """

    kind: str
    nanoseconds: float
    dims: tuple[Dim, ...]
    groups: int = 1


@dataclass(frozen=True)
class KernelTime:
    """Nanoseconds of a network as a function of its widths.

    `rows` and `shared` tell of every factor which staircase it climbs, and how many groups share
    its size; `starts` where the factors of each term begin.
    """

    sizes: Callable[[Widths], NDArray[np.float64]]
    stairs: NDArray[np.float64]
    rows: NDArray[np.int64]
    shared: NDArray[np.float64]
    starts: NDArray[np.int64]
    nanoseconds: NDArray[np.float64]

    def __call__(self, widths: Widths) -> float:
        """Return the nanoseconds at these widths."""
        sizes = np.ceil(self.sizes(widths) / self.shared - 1e-6).astype(np.int64)
        found = np.multiply.reduceat(self.stairs[self.rows, sizes], self.starts)
        return float(self.nanoseconds @ found)


def kernel_time(trace: Trace, coupling: CouplingGraph, staircase: Staircase) -> KernelTime | None:
    """Return the time of a coupled network for one input; None where nothing in it takes any."""
    shapes = {
        node.name: shape_of(node, trace.batch)
        for node in trace.graph.nodes
        if isinstance(node.meta.get("val"), Tensor)
    }
    terms = [
        term
        for node in trace.graph.nodes
        if node.op == "call_function" and AGAIN not in node.meta and node.name in shapes
        for term in _terms(node, trace, coupling, staircase)
        if term.dims
    ]
    if not terms:
        return None
    dims = [dim for term in terms for dim in term.dims]
    counts = [len(term.dims) for term in terms]
    kinds = (*KINDS, ELEMENT)
    most = max(int(shapes[name][at]) for name, at in dims)
    return KernelTime(
        sizes=model_sizes(trace, coupling, dims),
        stairs=np.stack([staircase.channels(kind, most) for kind in kinds]),
        rows=np.repeat([kinds.index(term.kind) for term in terms], counts),
        shared=np.repeat([float(term.groups) for term in terms], counts),
        starts=np.cumsum([0, *counts[:-1]]),
        nanoseconds=np.asarray([term.nanoseconds for term in terms]),
    )


def _terms(
    node: fx.Node, trace: Trace, coupling: CouplingGraph, staircase: Staircase
) -> Iterator[_Term]:
    name, batch = operator_name(node.target), trace.batch
    shape = shape_of(node, batch)
    if name in CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS:
        if isinstance(schema_arguments(node)["groups"], int):  # else as many as there are images
            yield _convolution(node, name, trace, staircase)
    elif name in LINEAR:
        source = schema_arguments(node)["input"]
        rows = math.prod(shape[:-1])
        last = len(shape) - 1
        work = rows * staircase.nanoseconds[GEMM]
        yield _Term(GEMM, work, ((source.name, last), (node.name, last)))
    elif name in ATTENTION | CONTRACTIONS:
        for term in operator_terms(node, batch) or ():
            yield _varying(GEMM, staircase.nanoseconds[GEMM] * term.coefficient, term.dims, trace,
                           coupling)  # fmt: skip
    elif name not in MOVES and not _is_fused(node, name):
        each = staircase.nanoseconds[ELEMENT] * (DEAR_ELEMENTS if name in DEAR else 1.0)
        dims = tuple((node.name, dim) for dim in range(len(shape)))
        yield _varying(ELEMENT, each, dims, trace, coupling)


def _convolution(node: fx.Node, name: str, trace: Trace, staircase: Staircase) -> _Term:
    arguments = schema_arguments(node)
    source, weight = arguments["input"], shape_of(arguments["weight"], trace.batch)
    kernel, groups = weight[2:], arguments["groups"]
    placed = source if name in TRANSPOSED_CONVOLUTIONS else node
    shape = shape_of(placed, trace.batch)
    channels = len(shape) - len(kernel) - 1
    work = math.prod(kernel) * math.prod(size for at, size in enumerate(shape) if at != channels)
    inputs = shape_of(source, trace.batch)[channels]
    if groups == inputs > 1:
        return _Term(DEPTHWISE, work * staircase.nanoseconds[DEPTHWISE], ((node.name, channels),))
    kind = POINTWISE if math.prod(kernel) == 1 else CONV
    dims = ((source.name, channels), (node.name, channels))
    return _Term(kind, groups * work * staircase.nanoseconds[kind], dims, groups)


def _varying(
    kind: str, nanoseconds: float, dims: Sequence[Dim], trace: Trace, coupling: CouplingGraph
) -> _Term:
    """Return a term with the dimensions that a cut changes; the sizes of the others multiply it."""
    moving = tuple(dim for dim in dims if dim[1] in coupling.values.get(dim[0], {}))
    values = {node.name: node for node in trace.graph.nodes}
    fixed = [dim for dim in dims if dim not in moving]
    still = [shape_of(values[name], trace.batch)[at] for name, at in fixed]
    return _Term(kind, nanoseconds * math.prod(still), moving)


def _is_fused(node: fx.Node, name: str) -> bool:
    """Tell whether an operator runs as part of the layer whose output it alone reads."""
    if name not in FUSED or not node.all_input_nodes:
        return False
    source = node.all_input_nodes[0]
    made = operator_name(source.target) if source.op == "call_function" else ""
    alone = len(source.users) == 1
    return alone and (made in CONVOLUTIONS or (made in FUSED and _is_fused(source, made)))
