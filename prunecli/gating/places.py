"""Where gates are in a network: on the weights that read a channel, or where papers have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.gating.bank import Places, Site, ValueSite
from prunecli.graph.coupling.groups import STAYS
from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import CHANNEL_NORMS, operator_name, schema_arguments
from prunecli.proof.inputs import zeroed_sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from torch import fx

    from prunecli.graph.coupling.groups import Atoms, ChannelGroup, CouplingGraph
    from prunecli.network.traced import Network

READERS, NORMS, FILTERS = "readers", "norms", "filters"


def places_of(network: Network, gated: NDArray[np.bool_], where: str = READERS) -> Places:
    """Return where the gates of these atoms (booleans) are.

    `readers` are the weights that read the channels; `norms` what their layers compute, behind the
    batch norm where one follows; `filters` the weights that make them.
    """
    return PLACEMENTS[where](network, gated)


def _readers(network: Network, gated: NDArray[np.bool_]) -> Places:
    return Places(sites_of(network.coupling, gated))


def _filters(network: Network, gated: NDArray[np.bool_]) -> Places:
    coupling = network.coupling
    return Places(_sites(coupling, gated, _with_biases))


def _with_biases(group: ChannelGroup) -> tuple[tuple[str, int], ...]:
    """Return what makes the channels of a group: the weights of layers, and their biases."""
    made = {name.removesuffix("weight") for name, _ in group.producers}
    biases = (site for site in group.sites if site[0].removesuffix("bias") in made)
    return (*group.producers, *biases)


def _norms(network: Network, gated: NDArray[np.bool_]) -> Places:
    found = []
    for node in network.trace.graph.nodes:
        if node.op != "call_function" or operator_name(node.target) not in PRODUCERS:
            continue
        behind = _behind_norm(node)
        for dim, atoms in network.coupling.values.get(behind.name, {}).items():
            rows = _rows(atoms, gated)
            if (rows < gated.size).any():
                found.append(ValueSite(behind.name, dim, rows, _scales(network, behind, rows)))
    return Places((), tuple(found))


def _scales(network: Network, node: fx.Node, rows: NDArray[np.int64]) -> tuple[Site, ...]:
    """Return the weight and the bias that scale what a layer or a norm computes."""
    arguments = schema_arguments(node)
    found = []
    for part in (arguments.get("weight"), arguments.get("bias")):
        name = "" if part is None else network.trace.tensors.get(part.name, "")
        for dim, atoms in network.coupling.tensors.get(name, {}).items():
            if np.isin(atoms, rows).any():
                open_gate = network.coupling.atom_count
                found.append(Site(name, {dim: np.where(np.isin(atoms, rows), atoms, open_gate)}))
    return tuple(found)


def _behind_norm(node: fx.Node) -> fx.Node:
    """Return the batch norm that alone reads what a layer computes; else what it computes."""
    readers = tuple(node.users)
    alone = len(readers) == 1 and readers[0].op == "call_function"
    return readers[0] if alone and operator_name(readers[0].target) in CHANNEL_NORMS else node


PLACEMENTS: Mapping[str, Callable[[Network, NDArray[np.bool_]], Places]] = {
    READERS: _readers,
    NORMS: _norms,
    FILTERS: _filters,
}


def sites_of(coupling: CouplingGraph, gated: NDArray[np.bool_]) -> tuple[Site, ...]:
    """Return the weights to multiply gates into where these atoms (booleans) are masked."""
    return _sites(coupling, gated, zeroed_sites)


def _sites(
    coupling: CouplingGraph,
    gated: NDArray[np.bool_],
    of_group: Callable[[ChannelGroup], Iterable[tuple[str, int]]],
) -> tuple[Site, ...]:
    found: dict[str, dict[int, NDArray[np.int64]]] = {}
    groups = [group for group in coupling.groups if gated[group.atoms].any()]
    for name, dim in dict.fromkeys(site for group in groups for site in of_group(group)):
        found.setdefault(name, {})[dim] = _rows(coupling.tensors[name][dim], gated)
    return tuple(Site(name, rows) for name, rows in found.items())


def _rows(atoms: Atoms, gated: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of the gate of every position: behind the last where it has none."""
    return np.where((atoms != STAYS) & gated[atoms], atoms, gated.size)
