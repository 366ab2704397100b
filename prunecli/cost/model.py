"""What a network costs, as closed forms in the widths of its channel groups."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from prunecli.cost.flops import Dim, Term, graph_terms, operator_terms
from prunecli.cost.kinds import COST_KINDS, LATENCY, Counted
from prunecli.graph.coupling.groups import STAYS, CouplingGraph
from prunecli.graph.operators import schema_arguments, shape_of
from prunecli.report import Cost

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from prunecli.graph.tracing.trace import Trace

Widths = NDArray[np.int64]
"""The number of channels left in each group, in the order of `CouplingGraph.groups`."""

Monomial = tuple[float, tuple[int, ...]]
"""A coefficient times the sizes with these numbers."""

_STORED = "#stored "
"""Marks the name of a stored tensor: a parameter may be called as a node of the graph is."""


class Latency(Protocol):
    """Predicts milliseconds from widths, and from the activations that follow from them."""

    def predict(self, widths: Widths, *, activations: float) -> float:
        """Return the milliseconds of a forward."""

    def gradient(self, widths: Widths, *, activations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return those of one more channel in each group."""


class TableLatency(Latency, Protocol):
    """Predicts from a table, which holds for what is left of a network too."""

    def over(self, trace: Trace, coupling: CouplingGraph) -> TableLatency:
        """Return what the table predicts of a network that is left of this one."""


@dataclass(frozen=True)
class CostModel:
    """Closed forms of every cost kind.

    A dimension's size is `base[d] + counts[d] @ widths`; a term is a coefficient times up to
    `factors.shape[1]` such sizes. `kinds` maps a cost kind to its slice of terms; `nodes` names
    each term's operator, and `weights` the weight that an operator reads; `latency` predicts
    milliseconds where a table was measured. The closed forms count
    the network with its computed weights folded, and without deleted blocks; `beside` is what the
    user's own has beside.
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
    beside: Mapping[str, float] = field(default_factory=dict)
    latency: Latency | None = None

    def cost(self, widths: Widths) -> dict[str, float]:
        """Return every cost kind at the given widths; `latency` is one where it was measured."""
        terms = self.terms(widths)
        found = {kind: float(terms[at].sum()) for kind, at in self.kinds.items()}
        if self.latency is not None:
            found[LATENCY] = self.latency.predict(widths, activations=found["activations"])
        return found

    def report(self, widths: Widths) -> Cost:
        """Return the costs as they are reported."""
        return _reported(self.cost(widths))

    @cached_property
    def dense(self) -> dict[str, float]:
        """The costs of the user's own network."""
        found = self.cost(self.dense_widths)
        return {kind: value + self.beside.get(kind, 0.0) for kind, value in found.items()}

    def report_dense(self) -> Cost:
        """Return the costs of the user's own network as they are reported."""
        return _reported(self.dense)

    def gradient(self, kind: str, widths: Widths) -> NDArray[np.float64]:
        """Return the cost of one more channel in each group, to first order, at these widths."""
        if kind == LATENCY:
            assert self.latency is not None
            return self.latency.gradient(widths, activations=self.gradient("activations", widths))
        at = self.kinds[kind]
        sizes = self._sizes(widths)[self.factors[at]]
        per_dim = np.zeros(self.base.size)
        for column in range(sizes.shape[1]):
            others = np.prod(np.delete(sizes, column, axis=1), axis=1)
            np.add.at(per_dim, self.factors[at, column], self.coefficients[at] * others)
        return np.asarray(per_dim @ self.counts)

    def share(self, kind: str) -> NDArray[np.float64]:
        """Return the share of the dense cost that goes when each group alone loses all channels."""
        total, full = self.dense[kind] or 1.0, self.cost(self.dense_widths)[kind]
        shares = np.zeros(self.dense_widths.size)
        for group in range(shares.size):
            widths = self.dense_widths.copy()
            widths[group] = 0
            shares[group] = (full - self.cost(widths)[kind]) / total
        return shares

    def share_of_tensors(self, tensors: set[str]) -> float:
        """Return the share of the dense FLOPs of the operators that read these weights."""
        at = self.kinds["flops"]
        costs = self.terms(self.dense_widths)[at]
        reading = [self.weights.get(node) in tensors for node in self.nodes[at]]
        return float(costs[reading].sum() / (self.dense["flops"] or 1.0))

    def by_owner(self, kind: str, widths: Widths) -> dict[str, float]:
        """Return a cost that has a closed form by what causes it.

        That is the weight that an operator reads, else the operator; a stored tensor, or a group.
        """
        at = self.kinds[kind]
        found: defaultdict[str, float] = defaultdict(float)
        for node, cost in zip(self.nodes[at], self.terms(widths)[at].tolist(), strict=True):
            found[self.weights.get(node, node)] += cost
        return dict(found)

    def _sizes(self, widths: Widths) -> NDArray[np.float64]:
        return np.asarray(self.base + self.counts @ widths)

    def terms(self, widths: Widths) -> NDArray[np.float64]:
        """Return the value of every term at the given widths."""
        sizes = self._sizes(widths)[self.factors]
        return np.asarray(self.coefficients * np.prod(sizes, axis=1))


def _reported(found: Mapping[str, float]) -> Cost:
    return Cost({kind: value if kind == LATENCY else round(value) for kind, value in found.items()})


def model_cost(
    trace: Trace, coupling: CouplingGraph, model: nn.Module, *, without: Container[str] = ()
) -> CostModel:
    """Return the closed-form costs of a coupled network, for one input.

    `without` names tensors of the model that are not to be counted.
    """
    flops, activations, missing = graph_terms(trace)
    own = {name: item for name, item in _stored(model).items() if name not in without}
    tensors = _tensor_terms(_after_folding(own, trace))
    params = [term for term, is_parameter, _ in tensors if is_parameter]
    stored = [Term(term.node, term.coefficient * size, term.dims) for term, _, size in tensors]
    dims = _Dims(trace, coupling)
    channels = [
        Term(group.name, 1.0, (dims.group(at),)) for at, group in enumerate(coupling.groups)
    ]
    counted = Counted(
        trace,
        flops=flops,
        activations=activations,
        params=params,
        stored=stored,
        channels=channels,
    )
    listed = {
        entry.name: entry.value.terms(counted)
        for entry in COST_KINDS
        if entry.value.terms is not None
    }
    packed = _pack(listed, dims, coupling, _weights(trace), missing)
    return replace(packed, beside=_folded_away(own, trace))


def model_sizes(
    trace: Trace, coupling: CouplingGraph, dims: Sequence[Dim]
) -> Callable[[Widths], NDArray[np.float64]]:
    """Return a function from widths to the sizes of these dimensions of the traced graph."""
    listed = [Term(str(at), 1.0, (dim,)) for at, dim in enumerate(dims)]
    packed = _pack({"sizes": listed}, _Dims(trace, coupling), coupling, {}, {})
    rows = np.asarray(packed.nodes, np.int64)

    def sizes(widths: Widths) -> NDArray[np.float64]:
        found = np.bincount(rows, packed.terms(widths), minlength=len(dims))
        return np.asarray(found, np.float64)

    return sizes


# --- from terms to arrays ------------------------------------------------------------------------


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
        for term in operator_terms(node, None) or () if node.op == "call_function" else ():
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
