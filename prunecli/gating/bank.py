"""Gates inside a traced network: one per atom, multiplied into the weights that read it.

At the sites that the proof zeroes (`zeroed_sites`), a weight is multiplied by the gates of the
atoms that decide about its positions. A closed gate is then what the proof calls masked, and a
network whose gates are 0 and 1 equals the cut one, whatever lies between: no norm can undo a
gate, and a fractional one can be multiplied into the weights for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.errors import GraphError
from prunecli.graph.coupling.groups import STAYS
from prunecli.proof.inputs import zeroed_sites

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import ChannelGroup, CouplingGraph
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


def sites_of(coupling: CouplingGraph, gated: NDArray[np.bool_]) -> tuple[Site, ...]:
    """Return the weights to multiply gates into where these atoms (booleans) have one."""
    found: dict[str, dict[int, NDArray[np.int64]]] = {}
    groups = [group for group in coupling.groups if gated[group.atoms].any()]
    for name, dim in dict.fromkeys(site for group in groups for site in zeroed_sites(group)):
        atoms = coupling.tensors[name][dim]
        alive = (atoms != STAYS) & gated[atoms]
        found.setdefault(name, {})[dim] = np.where(alive, atoms, coupling.atom_count)
    return tuple(Site(name, rows) for name, rows in found.items())


class GateBank(nn.Module):
    """The gates of a network: a logit per gated atom, a mask of 0 and 1, and this step's draws.

    In training mode `trained` makes gates of them, in evaluation `tested`; both see the bank.
    `gated` are the numbers of the gated atoms; any other is always open.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        gated: NDArray[np.bool_],
        *,
        trained: Opened,
        tested: Opened,
    ) -> None:
        super().__init__()
        numbers = np.flatnonzero(gated)
        self.active = False
        """Whether the search has begun: before, every gate is open."""
        self.weights = tuple(site.weight for site in sites)
        self.trained, self.tested = trained, tested
        self.logits = nn.Parameter(torch.zeros(numbers.size))
        self.register_buffer("mask", torch.ones(numbers.size))
        self.register_buffer("draws", torch.full((numbers.size,), 0.5), persistent=False)
        self.register_buffer("gated", torch.as_tensor(numbers), persistent=False)
        # One more gate than there are atoms: that of positions that stay.
        self.register_buffer("opened", torch.ones(gated.size + 1), persistent=False)
        self.dims: list[list[tuple[int, str]]] = []
        for at, site in enumerate(sites):
            self.dims.append([])
            for dim, rows in site.rows.items():
                name = f"rows_{at}_{dim}"
                self.register_buffer(name, torch.as_tensor(rows), persistent=False)
                self.dims[-1].append((dim, name))

    mask: Tensor
    draws: Tensor
    gated: Tensor
    opened: Tensor

    def gates(self) -> Tensor:
        """Return one gate per atom, and a last one that is open, in float32."""
        if not self.active:
            return self.opened
        return self.among_all((self.trained if self.training else self.tested)(self))

    def among_all(self, own: Tensor) -> Tensor:
        """Return one gate per atom of these [gated atoms], and a last one that is open."""
        return self.opened.index_put((self.gated,), own.to(self.opened.dtype))

    def forward(self, *weights: Tensor) -> tuple[Tensor, ...]:
        """Return the weights of all sites with their gates multiplied in."""
        return self.multiplied(self.gates(), weights)

    def multiplied(self, gates: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the weights of all sites times `gates`: one per atom, and a last one."""
        return tuple(
            self._times(weight, gates, dims)
            for weight, dims in zip(weights, self.dims, strict=True)
        )

    def _times(self, weight: Tensor, gates: Tensor, dims: Sequence[tuple[int, str]]) -> Tensor:
        for dim, name in dims:
            rows: Tensor = getattr(self, name)
            own = gates[rows].prod(0) if rows.shape[0] > 1 else gates[rows[0]]
            shape = [1] * weight.dim()
            shape[dim] = -1
            weight = weight * own.view(shape).to(weight.dtype)
        return weight


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
        gated = [graph.call_function(_item, (called, at)) for at in range(len(weights))]
    for name, value in zip(bank.weights, gated, strict=True):
        for node in reads[name]:
            node.replace_all_uses_with(value)
            graph.erase_node(node)
    graph.lint()
    network.recompile()


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
