"""What a network costs, as closed forms in the widths of its channel groups.

One FLOP is one multiply-add, as fvcore counts: convolutions, linear layers and matrix products by
their multiply-adds, batch norm by 2 and other norms by 5 per element, adaptive average pooling by 1
per input element, upsampling by its output. Everything else is listed as not counted.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from prunecli.graph.coupling import STAYS, CouplingGraph
from prunecli.graph.record import AGAIN
from prunecli.graph.rules.call import is_pointwise, operator_name, schema_arguments, shape_of
from prunecli.graph.rules.compute import einsum_letters
from prunecli.registry import Registry
from prunecli.report import Cost

if TYPE_CHECKING:
    from prunecli.graph.trace import Trace

Widths = NDArray[np.int64]
"""The number of channels left in each group, in the order of `CouplingGraph.groups`."""

NOT_COUNTED_BUT_CHEAP = {
    "alias", "arange", "cat", "chunk", "clone", "contiguous", "detach", "dropout", "expand",
    "flatten", "getitem", "pad", "constant_pad_nd", "permute", "reshape", "select", "slice",
    "split",
    "split_with_sizes", "squeeze", "stack", "sym_size", "t", "to", "transpose", "unbind",
    "unflatten", "unsqueeze", "view", "_assert_tensor_metadata",
}  # fmt: skip
"""Operators that move data without arithmetic; leaving them out is no omission."""

Dim = tuple[str, int]
"""One dimension of a value of the traced graph, by node name, or of a stored tensor."""

Monomial = tuple[float, tuple[int, ...]]
"""A coefficient times the sizes with these numbers."""

_STORED = "#stored "
"""Marks the name of a stored tensor: a parameter may be called as a node of the graph is."""


@dataclass(frozen=True)
class Term:
    """`coefficient` times the product of the sizes of some dimensions."""

    node: str
    coefficient: float
    dims: tuple[Dim, ...]


CostRule = Callable[[fx.Node, Mapping[str, Any], Any], list[Term]]
COSTS: Registry[CostRule] = Registry("flop count")


@dataclass(frozen=True)
class CostModel:
    """Closed forms of every cost kind.

    A dimension's size is `base[d] + counts[d] @ widths`; a term is a coefficient times up to
    `factors.shape[1]` such sizes. `kinds` maps a cost kind to its slice of terms; `nodes` names
    each term's operator, and `weights` the weight that an operator reads. The closed forms count
    the network with its computed weights folded; `folded` is what the user's own has beside.
    """

    base: NDArray[np.float64]
    counts: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    factors: NDArray[np.int64]
    kinds: Mapping[str, slice]
    nodes: tuple[str, ...]
    weights: Mapping[str, str]
    dense_widths: Widths
    not_counted: Mapping[str, int]
    folded: Mapping[str, float] = field(default_factory=dict)

    def cost(self, widths: Widths) -> dict[str, float]:
        """Return every cost kind at the given widths."""
        terms = self._terms(widths)
        return {kind: float(terms[at].sum()) for kind, at in self.kinds.items()}

    def report(self, widths: Widths) -> Cost:
        """Return the costs as they are reported."""
        found = self.cost(widths)
        return Cost(**{kind: round(value) for kind, value in found.items()})

    @cached_property
    def dense(self) -> dict[str, float]:
        """The costs of the user's own network."""
        found = self.cost(self.dense_widths)
        return {kind: value + self.folded.get(kind, 0.0) for kind, value in found.items()}

    def report_dense(self) -> Cost:
        """Return the costs of the user's own network as they are reported."""
        return Cost(**{kind: round(value) for kind, value in self.dense.items()})

    def gradient(self, kind: str, widths: Widths) -> NDArray[np.float64]:
        """Return the cost of one more channel in each group, to first order, at these widths."""
        at = self.kinds[kind]
        sizes = self._sizes(widths)[self.factors[at]]
        per_dim = np.zeros(self.base.size)
        for column in range(sizes.shape[1]):
            others = np.prod(np.delete(sizes, column, axis=1), axis=1)
            np.add.at(per_dim, self.factors[at, column], self.coefficients[at] * others)
        return np.asarray(per_dim @ self.counts)

    def share(self, kind: str) -> NDArray[np.float64]:
        """Return the share of the dense cost that goes when each group alone loses all channels."""
        total = self.cost(self.dense_widths)[kind] or 1.0
        shares = np.zeros(self.dense_widths.size)
        for group in range(shares.size):
            widths = self.dense_widths.copy()
            widths[group] = 0
            shares[group] = 1.0 - self.cost(widths)[kind] / total
        return shares

    def share_of_tensors(self, tensors: set[str]) -> float:
        """Return the share of the dense FLOPs of the operators that read these weights."""
        at = self.kinds["flops"]
        costs = self._terms(self.dense_widths)[at]
        reading = [self.weights.get(node) in tensors for node in self.nodes[at]]
        return float(costs[reading].sum() / (costs.sum() or 1.0))

    def _sizes(self, widths: Widths) -> NDArray[np.float64]:
        return np.asarray(self.base + self.counts @ widths)

    def _terms(self, widths: Widths) -> NDArray[np.float64]:
        sizes = self._sizes(widths)[self.factors]
        return np.asarray(self.coefficients * np.prod(sizes, axis=1))


def model_cost(trace: Trace, coupling: CouplingGraph, model: nn.Module) -> CostModel:
    """Return the closed-form costs of a coupled network, for one input."""
    flops, activations, missing = _count_graph(trace)
    own = _stored(model)
    tensors = _tensor_terms(_after_folding(own, trace))
    params = [term for term, is_parameter, _ in tensors if is_parameter]
    stored = [Term(term.node, term.coefficient * size, term.dims) for term, _, size in tensors]
    dims = _Dims(trace, coupling)
    channels = [
        Term(group.name, 1.0, (dims.group(at),)) for at, group in enumerate(coupling.groups)
    ]
    listed = {
        "flops": flops,
        "params": params,
        "activations": activations,
        "bytes": stored,
        "channels": channels,
    }
    packed = _pack(listed, dims, coupling, _weights(trace), missing)
    return replace(packed, folded=_folded_away(own, trace))


def count_flops(model: nn.Module, example: tuple[Tensor, ...]) -> float:
    """Return the FLOPs of a module for `example`, as fvcore counts them on the module itself."""
    # fvcore traces with torch.jit, whose deprecation is no news to the user.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, example)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return float(analysis.total())


# --- FLOPs of one operator -----------------------------------------------------------------------


def _count(*operators: str, summary: str) -> Callable[[CostRule], CostRule]:
    def register(function: CostRule) -> CostRule:
        for operator in operators:
            COSTS.add(operator, function, summary=summary, source="fvcore.nn.jit_handles")
        return function

    return register


@_count(
    "conv1d", "conv2d", "conv3d", "deform_conv2d",
    summary="Output positions times elements of the weight.",
)  # fmt: skip
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


@_count(
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    summary="Input positions times elements of the weight.",
)  # fmt: skip
def _transposed(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    weight = arguments["weight"]
    kernel = shape_of(weight, batch)[2:]
    source = arguments["input"]
    positions = _positions(source, len(shape_of(source, batch)), len(kernel))
    return [Term(node.name, math.prod(kernel), ((weight.name, 0), (weight.name, 1), *positions))]


@_count("linear", summary="Rows times inputs times outputs.")
def _linear(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    source, weight = arguments["input"], arguments["weight"].name
    rows = _all(source, len(shape_of(source, batch)) - 1)
    return [Term(node.name, 1.0, (*rows, (weight, 0), (weight, 1)))]


@_count("matmul", "bmm", "mm", summary="Elements of the first factor times columns of the second.")
def _matmul(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    first, second = list(arguments.values())[:2]
    rank = len(shape_of(first, batch))
    columns = len(shape_of(second, batch)) - 1
    return [Term(node.name, 1.0, (*_all(first, rank), (second.name, columns)))]


@_count("addmm", "baddbmm", summary="The matrix product, without the sum.")
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


@_count(
    "scaled_dot_product_attention",
    summary="Its two matrix products (fvcore counts none).",
)
def _attention(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    rank = len(shape_of(query, batch))
    positions = (key.name, rank - 2)
    return [
        Term(node.name, 1.0, (*_all(query, rank), positions)),
        Term(node.name, 1.0, (*_all(query, rank - 1), positions, (value.name, rank - 1))),
    ]


@_count("batch_norm", summary="2 per element with an affine part, else 1.")
def _batch_norm(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    scale = 1.0 if arguments["weight"] is None else 2.0
    return [Term(node.name, scale, _all(node, len(shape_of(node, batch))))]


@_count("layer_norm", "group_norm", "instance_norm", "rms_norm", summary="5 per element, else 4.")
def _norm(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    scale = 4.0 if arguments["weight"] is None else 5.0
    return [Term(node.name, scale, _all(node, len(shape_of(node, batch))))]


@_count("adaptive_avg_pool2d", summary="1 per element of the input.")
def _adaptive_pool(_: fx.Node, arguments: Mapping[str, Any], batch: Any) -> list[Term]:
    source = arguments.get("self") or arguments["input"]
    return [Term(source.name, 1.0, _all(source, len(shape_of(source, batch))))]


@_count("upsample_nearest2d", summary="1 per element of the output.")
def _nearest(node: fx.Node, _: Mapping[str, Any], batch: Any) -> list[Term]:
    return [Term(node.name, 1.0, _all(node, len(shape_of(node, batch))))]


@_count("upsample_bilinear2d", summary="4 per element of the output.")
def _bilinear(node: fx.Node, _: Mapping[str, Any], batch: Any) -> list[Term]:
    return [Term(node.name, 4.0, _all(node, len(shape_of(node, batch))))]


COUNTS_ACTIVATIONS = frozenset(
    {
        "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "linear", "matmul", "bmm", "mm", "addmm", "baddbmm", "einsum", "deform_conv2d",
    }
)  # fmt: skip
"""Operators whose outputs count as activations, as in fvcore."""


def _all(node: fx.Node, rank: int) -> tuple[Dim, ...]:
    return tuple((node.name, dim) for dim in range(rank))


# --- from terms to arrays ------------------------------------------------------------------------


def _count_graph(trace: Trace) -> tuple[list[Term], list[Term], dict[str, int]]:
    flops: list[Term] = []
    activations: list[Term] = []
    missing: dict[str, int] = {}
    for node in trace.graph.nodes:
        if node.op != "call_function" or AGAIN in node.meta:
            continue
        name = operator_name(node.target)
        if name in COSTS:
            flops.extend(COSTS.get(name)(node, schema_arguments(node), trace.batch))
        elif name not in NOT_COUNTED_BUT_CHEAP and isinstance(node.meta.get("val"), Tensor):
            kind = "pointwise" if is_pointwise(node.target) else name
            missing[kind] = missing.get(kind, 0) + 1
        if name in COUNTS_ACTIVATIONS:
            activations.append(Term(node.name, 1.0, _all(node, len(shape_of(node, trace.batch)))))
    return flops, activations, missing


def _weights(trace: Trace) -> dict[str, str]:
    """Return the weight that each operator with one reads, by node name."""
    found = {}
    for node in trace.graph.nodes:
        weight = schema_arguments(node).get("weight") if node.op == "call_function" else None
        if isinstance(weight, fx.Node) and weight.name in trace.tensors:
            found[node.name] = trace.tensors[weight.name]
    return found


def _stored(model: nn.Module) -> dict[str, tuple[Tensor, bool]]:
    """Return every tensor that takes room in a file, and whether it is a parameter."""
    parameters = dict(model.named_parameters())
    written = model.state_dict()  # a buffer that is not persistent takes no room in a file
    buffers = {name: value for name, value in model.named_buffers() if name in written}
    return {
        **{name: (value, True) for name, value in parameters.items()},
        **{name: (value, False) for name, value in buffers.items()},
    }


def _after_folding(
    stored: Mapping[str, tuple[Tensor, bool]], trace: Trace
) -> dict[str, tuple[Tensor, bool]]:
    """Return what is stored once computed weights are tensors of their own."""
    if trace.folding is None:
        return dict(stored)
    kept = {name: item for name, item in stored.items() if name not in trace.folding.absorbed}
    folded = trace.folding.tensors.items()
    return {**kept, **{name: (value, name not in trace.buffers) for name, value in folded}}


def _folded_away(stored: Mapping[str, tuple[Tensor, bool]], trace: Trace) -> dict[str, float]:
    """Return what the user's network has, and does, beside the folded one."""
    if trace.folding is None:
        return {}
    after = _after_folding(stored, trace)
    sizes = [
        (sign * value.numel(), value.element_size(), is_parameter)
        for sign, listed in ((1, stored), (-1, after))
        for value, is_parameter in listed.values()
    ]
    flops = 0.0
    for node in trace.folding.graph.nodes:
        name = operator_name(node.target) if node.op == "call_function" else ""
        for term in COSTS.get(name)(node, schema_arguments(node), None) if name in COSTS else ():
            shapes = {value.name: shape_of(value, None) for value in (node, *node.all_input_nodes)}
            flops += term.coefficient * math.prod(shapes[at][dim] for at, dim in term.dims)
    return {
        "flops": flops,
        "params": float(sum(count for count, _, is_parameter in sizes if is_parameter)),
        "bytes": float(sum(count * size for count, size, _ in sizes)),
    }


def _tensor_terms(stored: Mapping[str, tuple[Tensor, bool]]) -> list[tuple[Term, bool, int]]:
    """Return the size of every stored tensor: its term, whether it is a parameter, bytes each."""
    return [
        (
            Term(name, 1.0, tuple((_STORED + name, dim) for dim in range(tensor.dim()))),
            is_parameter,
            tensor.element_size(),
        )
        for name, (tensor, is_parameter) in stored.items()
    ]


class _Dims:
    """Numbers the dimensions that vary and writes down how their sizes follow from the widths."""

    def __init__(self, trace: Trace, coupling: CouplingGraph) -> None:
        self.coupling = coupling
        self.tensors = trace.tensors
        self.shapes = {
            node.name: shape_of(node, trace.batch)
            for node in trace.graph.nodes
            if isinstance(node.meta.get("val"), Tensor)
        }
        for node, tensor in trace.tensors.items():
            self.shapes[_STORED + tensor] = self.shapes[node]
        starts = np.asarray([group.first for group in coupling.groups] or [0])
        self.group_of = np.searchsorted(starts, np.arange(coupling.atom_count), side="right") - 1
        self.widths = np.asarray([group.width for group in coupling.groups], np.float64)
        # Dimension 0 always has size 1: it pads products that have fewer factors than others.
        self.base: list[float] = [1.0]
        self.counts: list[NDArray[np.float64]] = [np.zeros(len(coupling.groups))]
        self.numbers: dict[bytes, int] = {}
        self.groups: dict[int, Dim] = {}

    def group(self, at: int) -> Dim:
        """Return a made-up dimension that counts the channels of one group."""
        return ("#group", at)

    def sizes(self, dim: Dim) -> list[Monomial]:
        """Return the size of a dimension as a sum of products of numbered sizes."""
        name, at = dim
        if name == "#group":
            return [(1.0, (self._add(0.0, np.eye(1, self.widths.size, at)[0]),))]
        atoms = self._atoms(name, at)
        if atoms is None:
            return [(float(self.shapes[name][at]), ())]
        return self._sizes(atoms)

    def _sizes(self, atoms: NDArray[np.int64]) -> list[Monomial]:
        groups = np.where(atoms == STAYS, -1, self.group_of[atoms])
        several = (groups >= 0).sum(0) > 1
        counts = np.bincount(groups[:, ~several].max(0) + 1, minlength=self.widths.size + 1)
        linear = self._add(float(counts[0]), counts[1:] / self.widths)
        found: list[Monomial] = [(1.0, (linear,))] if counts.any() else []
        # What is left of heads times width is the product of what is left of either.
        pairs, count = np.unique(np.sort(groups[:, several], axis=0), axis=1, return_counts=True)
        for pair, times in zip(pairs.T, count.tolist(), strict=True):
            members = pair[pair >= 0]
            widths = tuple(
                self._add(0.0, np.eye(1, self.widths.size, group)[0]) for group in members
            )
            found.append((times / float(np.prod(self.widths[members])), widths))
        return found

    def _atoms(self, name: str, at: int) -> NDArray[np.int64] | None:
        if name.startswith(_STORED):
            return self.coupling.tensors.get(name.removeprefix(_STORED), {}).get(at)
        if name in self.tensors:
            return self.coupling.tensors.get(self.tensors[name], {}).get(at)
        return self.coupling.values.get(name, {}).get(at)

    def _add(self, base: float, counts: NDArray[np.float64]) -> int:
        key = counts.tobytes() + np.float64(base).tobytes()
        if key not in self.numbers:
            self.numbers[key] = len(self.base)
            self.base.append(base)
            self.counts.append(counts)
        return self.numbers[key]


def _pack(
    listed: Mapping[str, Sequence[Term]],
    dims: _Dims,
    coupling: CouplingGraph,
    weights: Mapping[str, str],
    missing: Mapping[str, int],
) -> CostModel:
    coefficients: list[float] = []
    factors: list[list[int]] = []
    nodes: list[str] = []
    kinds: dict[str, slice] = {}
    for kind, terms in listed.items():
        start = len(coefficients)
        for term in terms:
            for monomials in itertools.product(*(dims.sizes(dim) for dim in term.dims)):
                scale = math.prod(coefficient for coefficient, _ in monomials)
                coefficients.append(term.coefficient * scale)
                factors.append([number for _, numbers in monomials for number in numbers])
                nodes.append(term.node)
        kinds[kind] = slice(start, len(coefficients))
    most = max((len(row) for row in factors), default=1) or 1
    return CostModel(
        base=np.asarray(dims.base),
        counts=np.stack(dims.counts),
        coefficients=np.asarray(coefficients, np.float64),
        factors=np.asarray([row + [0] * (most - len(row)) for row in factors], np.int64).reshape(
            -1, most
        ),
        kinds=kinds,
        nodes=tuple(nodes),
        weights=weights,
        dense_widths=np.asarray([group.width for group in coupling.groups], np.int64),
        not_counted=missing,
    )
