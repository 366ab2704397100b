"""Gates inside a traced network: one per atom, multiplied into weights or into what is computed.

At the sites that the proof zeroes (`prunecli.gating.places`), a weight is multiplied by the gates
of the atoms that decide about its positions. A closed gate is then what the proof calls masked, and
a network whose gates are 0 and 1 equals the cut one, whatever lies between: no norm can undo a
gate, and a fractional one can be multiplied into the weights for good. Gates on computed values are
where papers have them, and where a part of what writes into a stream is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.errors import GraphError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.network.traced import Network

GATES = "gates"
"""What the bank is called in the network that it is part of."""

Opened = Callable[["GateBank"], Tensor]
"""Gives the gates [gated atoms] of a bank: from its logits, its draws and its mask."""


@dataclass(frozen=True)
class Site:
    """One weight and how gates are multiplied into it.

    `rows[dim]` holds, for one dimension, [memberships, positions] numbers of atoms; the last number
    of all stands for a position that stays.
    """

    weight: str
    rows: Mapping[int, NDArray[np.int64]]


@dataclass(frozen=True)
class ValueSite:
    """One computed value, by its node, and the gates that are multiplied into it along `dim`.

    `scales` are the weights that scale it: a gate multiplied into them is in the value for good.
    """

    value: str
    dim: int
    rows: NDArray[np.int64]
    scales: tuple[Site, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where the gates of a network are: in weights, and in computed values."""

    weights: tuple[Site, ...]
    values: tuple[ValueSite, ...] = ()


class Slots(Protocol):
    """What follows of the gates of writers: which slots of their streams are alive."""

    def __call__(self, gates: Tensor) -> Tensor:
        """Return the gates [atoms and one] with those of slots, from those of their writers."""


class GateBank(nn.Module):
    """The gates of a network: a logit per gated atom, a mask of 0 and 1, and this step's draws.

    In training mode `trained` makes gates of them, in evaluation `tested`; both see the bank.
    `gated` are the numbers of the gated atoms; any other is always open, or follows by `slots`.
    """

    def __init__(
        self,
        places: Places,
        gated: NDArray[np.bool_],
        *,
        trained: Opened,
        tested: Opened,
        slots: Slots | None = None,
    ) -> None:
        super().__init__()
        numbers = np.flatnonzero(gated)
        self.active = False
        """Whether the search has begun: before, every gate is open."""
        self.places = places
        self.weights = tuple(site.weight for site in places.weights)
        self.trained, self.tested, self.slots = trained, tested, slots
        self.logits = nn.Parameter(torch.zeros(numbers.size))
        self.register_buffer("mask", torch.ones(numbers.size))
        self.register_buffer("draws", torch.full((numbers.size,), 0.5), persistent=False)
        self.register_buffer("gated", torch.as_tensor(numbers), persistent=False)
        # One more gate than there are atoms: that of positions that stay.
        self.register_buffer("opened", torch.ones(gated.size + 1), persistent=False)
        self.dims: list[list[tuple[int, str]]] = []
        for at, site in enumerate(places.weights):
            self.dims.append([])
            for dim, rows in site.rows.items():
                self.dims[-1].append((dim, self._table(f"rows_{at}_{dim}", rows)))
        self.lines = [self._table(f"line_{at}", site.rows) for at, site in enumerate(places.values)]

    mask: Tensor
    draws: Tensor
    gated: Tensor
    opened: Tensor

    def _table(self, name: str, rows: NDArray[np.int64]) -> str:
        self.register_buffer(name, torch.as_tensor(rows), persistent=False)
        return name

    def gates(self) -> Tensor:
        """Return one gate per atom, and a last one that is open, in float32."""
        if not self.active:
            return self.opened
        return self.among_all((self.trained if self.training else self.tested)(self))

    def among_all(self, own: Tensor) -> Tensor:
        """Return one gate per atom of these [gated atoms], and a last one that is open."""
        gates = self.opened.index_put((self.gated,), own.to(self.opened.dtype))
        return gates if self.slots is None else self.slots(gates)

    def forward(self, *weights: Tensor) -> tuple[Tensor, ...]:
        """Return the weights of all sites with gates multiplied in, then the gates of values."""
        gates = self.gates()
        lines = (self._product(gates, name) for name in self.lines)
        return (*self.multiplied(gates, weights), *lines)

    @torch.no_grad()
    def fold_(self, own: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Multiply gates [gated atoms] into the weights of a network by name, in place, for good.

        Those of computed values go into the weights that scale them.
        """
        gates = self.among_all(own)
        scales = (site for value in self.places.values for site in value.scales)
        for site in (*self.places.weights, *scales):
            weight = tensors[site.weight]
            for dim, rows in site.rows.items():
                line = gates[torch.as_tensor(rows, device=gates.device)].prod(0)
                weight.copy_(_times(weight, line, dim))

    def multiplied(self, gates: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the weights of all sites times `gates`: one per atom, and a last one."""
        return tuple(
            self._gated(weight, gates, dims)
            for weight, dims in zip(weights, self.dims, strict=True)
        )

    def _gated(self, weight: Tensor, gates: Tensor, dims: Sequence[tuple[int, str]]) -> Tensor:
        for dim, name in dims:
            weight = _times(weight, self._product(gates, name), dim)
        return weight

    def _product(self, gates: Tensor, name: str) -> Tensor:
        """Return the gates of positions: of several memberships, their product."""
        rows: Tensor = getattr(self, name)
        return gates[rows].prod(0) if rows.shape[0] > 1 else gates[rows[0]]


def _times(value: Tensor, gates: Tensor, dim: int) -> Tensor:
    shape = [1] * value.dim()
    shape[dim] = -1
    return value * gates.view(shape).to(value.dtype)


def add_gates_(network: fx.GraphModule, bank: GateBank) -> None:
    """Put a bank into a re-emitted dense network, in place: every reader gets its gated weight."""
    graph = network.graph
    reads: dict[str, list[fx.Node]] = {name: [] for name in bank.weights}
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target) in reads:
            reads[str(node.target)].append(node)
        elif node.op == "call_module":
            _check_reads_no_gated(network, node, reads)
    missing = [name for name, nodes in reads.items() if not nodes]
    if missing:
        raise GraphError(
            f"{len(missing)} weights that read channels are not in the traced graph",
            code="NOT_GATEABLE",
            where=missing[0],
            hint="use --method one-shot for this model, then prunecli finetune",
        )
    network.add_module(GATES, bank)
    first = next(node for node in graph.nodes if node.op != "placeholder")
    with graph.inserting_before(first):
        weights = [graph.get_attr(name) for name in bank.weights]
        called = graph.call_module(GATES, tuple(weights))
        count = len(weights) + len(bank.lines)
        gated = [graph.call_function(_item, (called, at)) for at in range(count)]
    for name, value in zip(bank.weights, gated, strict=False):
        for node in reads[name]:
            node.replace_all_uses_with(value)
            graph.erase_node(node)
    by_name = {node.name: node for node in graph.nodes}
    for site, line in zip(bank.places.values, gated[len(weights) :], strict=True):
        _gate_value_(graph, by_name[site.value], line, site.dim)
    graph.lint()
    network.recompile()


def _gate_value_(graph: fx.Graph, value: fx.Node, line: fx.Node, dim: int) -> None:
    readers = tuple(value.users)
    with graph.inserting_after(value):
        gated = graph.call_function(_times, (value, line, dim))
    for reader in readers:
        reader.replace_input_with(value, gated)


def _item(values: Sequence[Tensor], at: int) -> Tensor:
    return values[at]


def _check_reads_no_gated(
    network: fx.GraphModule, node: fx.Node, reads: Mapping[str, Sequence[fx.Node]]
) -> None:
    """Raise `GraphError` for a module that reads a gated weight by itself: it would not see it."""
    inside = {
        f"{node.target}.{name}"
        for name, _ in network.get_submodule(str(node.target)).named_parameters()
    }
    hidden = sorted(inside & reads.keys())
    if hidden:
        raise GraphError(
            "a weight that reads channels is inside a module of the traced graph",
            code="NOT_GATEABLE",
            where=hidden[0],
            hint="use --method one-shot for this model, then prunecli finetune",
        )


def gated_network(network: Network, bank: GateBank) -> fx.GraphModule:
    """Return the traced dense network with these gates in it."""
    graph, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    add_gates_(graph, bank)
    return graph


def group_sums(groups: Sequence[ChannelGroup], count: int) -> Tensor:
    """Return, for every atom of `count`, the number of its group: what widths are summed by."""
    numbers = torch.zeros(count, dtype=torch.int64)
    for at, group in enumerate(groups):
        numbers[group.atoms] = at
    return numbers
