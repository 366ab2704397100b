"""Where channels can be read: values that make or read them, weights that do, and their atoms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.graph.coupling.groups import STAYS, Atoms, CouplingGraph
from prunecli.graph.coupling.roles import PRODUCERS, parameters_behind
from prunecli.graph.operators import (
    CONTRACTIONS,
    EMBEDDINGS,
    LINEAR,
    operator_name,
    schema_arguments,
)
from prunecli.graph.rules.compute import einsum_letters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prunecli.graph.tracing.trace import Trace


@dataclass(frozen=True)
class Tap:
    """A value that carries channels: the graph node, its channel dimension and its atoms.

    `samples` is the dimension along which images lie (several rows for each where it was split into
    windows); None where the value is the same for all images.
    """

    node: str
    dim: int
    atoms: Atoms
    samples: int | None = 0


@dataclass(frozen=True)
class Places:
    """The atoms found at a site and, per membership, the slot of every position.

    Positions that stay have the slot behind the last atom.
    """

    atoms: Tensor
    slots: tuple[Tensor, ...]

    @classmethod
    def of(cls, atoms: Atoms) -> Places:
        """Sort out the positions of a tensor dimension."""
        found, inverse = np.unique(atoms, return_inverse=True)
        alive = found != STAYS
        slot = np.where(alive, np.cumsum(alive) - 1, alive.sum())
        rows = slot[inverse.reshape(atoms.shape)]
        return cls(torch.as_tensor(found[alive]), tuple(torch.as_tensor(row) for row in rows))

    def sum(self, values: Tensor) -> Tensor:
        """Sum the last dimension over positions of the same atom."""
        sums = values.new_zeros((*values.shape[:-1], len(self.atoms) + 1))
        for slot in self.slots:
            sums.index_add_(-1, slot.to(values.device), values)
        return sums[..., :-1]


def read_taps(trace: Trace, coupling: CouplingGraph) -> list[Tap]:
    """Return every activation that channels are read from, once.

    A channel is read where a product sums over it, with a weight or with another activation
    (queries and keys). What nothing reads like that is tapped where it is made.
    """
    reads = ((value, dim) for _, value, dim in readings(trace))
    found = _taps(reads, trace, coupling)
    seen = np.zeros(coupling.atom_count + 1, np.bool_)
    for tap in found:
        seen[tap.atoms] = True
    made = made_taps(trace, coupling)
    return found + [tap for tap in made if not seen[tap.atoms[tap.atoms != STAYS]].all()]


def made_taps(trace: Trace, coupling: CouplingGraph) -> list[Tap]:
    """Return every activation in which a weight makes channels, before any norm or activation."""
    return _taps(_makes(trace), trace, coupling)


def _taps(
    places: Iterable[tuple[fx.Node, int]], trace: Trace, coupling: CouplingGraph
) -> list[Tap]:
    found: dict[tuple[str, int], Tap] = {}
    for node, dim in places:
        atoms = coupling.values.get(node.name, {}).get(dim)
        if atoms is not None:
            found[node.name, dim] = Tap(node.name, dim, atoms, samples_of(node, trace.batch))
    return list(found.values())


def samples_of(node: fx.Node, batch: Any) -> int | None:
    """Return the dimension of a value whose size follows the batch."""
    if batch is None:
        return 0
    sizes = [str(size) for size in node.meta["val"].shape]
    return next((dim for dim, size in enumerate(sizes) if str(batch) in size), None)


def _calls(trace: Trace) -> Iterator[tuple[fx.Node, str]]:
    for node in trace.graph.nodes:
        if node.op == "call_function":
            yield node, operator_name(node.target)


def readings(trace: Trace) -> Iterator[tuple[fx.Node, fx.Node, int]]:
    """Yield every product that sums over channels, what it reads, and along which dimension."""
    behind = parameters_behind(trace)
    for node, operator in _calls(trace):
        if operator in PRODUCERS:
            arguments = schema_arguments(node)
            if isinstance(source := arguments.get("input"), fx.Node):
                yield node, source, channel_dim(operator, source, arguments["weight"])
        elif operator in SUMMED:
            for value, dim in SUMMED[operator](schema_arguments(node)):
                # Weights on either side are read themselves.
                if isinstance(value, fx.Node) and behind[value.name] is None:
                    yield node, value, dim % value.meta["val"].dim()


def _makes(trace: Trace) -> Iterator[tuple[fx.Node, int]]:
    behind = parameters_behind(trace)
    for node, operator in _calls(trace):
        if operator in PRODUCERS:
            yield node, channel_dim(operator, node, schema_arguments(node)["weight"])
        elif operator in CONTRACTIONS and any(
            behind[value.name] is not None for value in node.all_input_nodes
        ):
            yield from ((node, dim) for dim in range(node.meta["val"].dim()))


def channel_dim(operator: str, value: fx.Node, weight: fx.Node) -> int:
    """Return the dimension on which a layer's input or output holds its channels."""
    rank = value.meta["val"].dim()
    last = operator in LINEAR | EMBEDDINGS
    return int(rank - 1 if last else rank - weight.meta["val"].dim() + 1)


def _product(left: str, right: str) -> Callable[[dict[str, Any]], list[tuple[Any, int]]]:
    """Return what a matrix product sums over: the last dimension and the last but one."""

    def summed(arguments: dict[str, Any]) -> list[tuple[Any, int]]:
        other = arguments[right]
        vector = isinstance(other, fx.Node) and other.meta["val"].dim() == 1
        return [(arguments[left], -1), (other, -1 if vector else -2)]

    return summed


def _attention(arguments: dict[str, Any]) -> list[tuple[Any, int]]:
    """Name queries and keys; values are summed over positions alone."""
    return [(arguments["query"], -1), (arguments["key"], -1)]


def _einsum(arguments: dict[str, Any]) -> list[tuple[Any, int]]:
    """Return the dimensions whose letters are not in the output."""
    tensors = arguments["tensors"]
    ranks = [value.meta["val"].dim() for value in tensors]
    operands, output = einsum_letters(arguments["equation"], ranks)
    return [
        (value, dim)
        for value, letters in zip(tensors, operands, strict=True)
        for dim, letter in enumerate(letters)
        if letter not in output
    ]


SUMMED: dict[str, Callable[[dict[str, Any]], list[tuple[Any, int]]]] = {
    "matmul": _product("self", "other"),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "baddbmm": _product("batch1", "batch2"),
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
}
"""Products of two tensors, and which dimensions of which arguments they sum over."""
