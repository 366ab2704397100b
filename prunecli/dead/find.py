"""Which channels are dead: constant over the images, read by nothing, silent by their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.signals.oracle import loss_changes
from prunecli.signals.places import channel_dim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from prunecli.dead.activations import Seen
    from prunecli.evaluation.batches import BatchSource
    from prunecli.graph.coupling.groups import Atoms, ChannelGroup
    from prunecli.network.traced import Network
    from prunecli.progress import Progress


def why_not(group: ChannelGroup) -> str:
    """Return why the constants of a group's channels cannot be moved; empty where they can."""
    if group.contracted:
        return "a matrix product sums over its channels"
    if not group.exact:
        return "a norm runs over its channels"
    return "" if group.consumers else "no weight reads its channels"


def constant_atoms(network: Network, seen: Sequence[Seen]) -> NDArray[np.bool_]:
    """Return whether a channel is constant at every place that it is read from."""
    return _where_all(network, ((one.place.atoms, one.constant) for one in seen))


def unread_atoms(network: Network) -> NDArray[np.bool_]:
    """Return whether all weights that read a channel are zero."""
    sites = {site for group in network.coupling.groups for site in group.consumers}
    return _where_all(
        network,
        (
            (network.coupling.tensors[name][dim], _zero(network.tensors[name], dim))
            for name, dim in sites
        ),
    )


def silent_atoms(network: Network) -> NDArray[np.bool_]:
    """Return whether nothing that depends on the input gets into a channel, whatever the input.

    Every layer that makes the channel has zero weights there, or a batch norm of scale 0 behind it.
    """
    made: dict[tuple[str, int], list[NDArray[np.bool_]]] = {}
    for node in network.trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        name = _stored_weight(node, network) if operator in PRODUCERS else None
        if name is not None:
            dim = PRODUCERS[operator]
            silent = _zero(network.tensors[name], dim) | _scaled_to_zero(node, network)
            silent = silent | _passes(node, network, dim)
            made.setdefault((name, dim), []).append(silent)
    sites = {site for group in network.coupling.groups for site in group.producers}
    rows = []
    for name, dim in sites:
        atoms = network.coupling.tensors[name][dim]
        known = made.get((name, dim), [np.zeros(atoms.shape[1], np.bool_)])
        rows.append((atoms, np.logical_and.reduce(known)))
    return _where_all(network, rows)


def penalties(
    network: Network,
    seen: Sequence[Seen],
    batches: BatchSource,
    *,
    progress: Progress,
) -> NDArray[np.float64]:
    """Return the mean replacement penalty of every channel (Evci 2018, arXiv 1806.06068).

    That is the change of the mean loss when the channel alone is replaced by its mean over the
    images (and over the positions that share a weight) wherever it is read. One forward per
    channel; several are done at once, each in a copy of the batch.
    """
    means = {(one.place.source, one.place.dim): torch.as_tensor(one.mean) for one in seen}
    return loss_changes(
        network.trace,
        network.coupling,
        network.tensors,
        batches,
        constants=means,
        progress=progress,
    )


def of_groups(network: Network, chosen: Callable[[ChannelGroup], bool]) -> NDArray[np.bool_]:
    """Return one boolean per atom: whether its group is chosen."""
    mask = np.zeros(network.coupling.atom_count, np.bool_)
    for group in network.coupling.groups:
        mask[group.atoms] = chosen(group)
    return mask


def _where_all(
    network: Network, rows: Iterable[tuple[Atoms, NDArray[np.bool_]]]
) -> NDArray[np.bool_]:
    """Return the atoms that occur, and of which something holds at every position."""
    found = np.zeros(network.coupling.atom_count + 1, np.bool_)
    fails = np.zeros(network.coupling.atom_count + 1, np.bool_)
    for atoms, holds in rows:
        # What stays (-1) falls into the slot behind the last atom.
        found[atoms] = True
        fails[atoms[:, ~holds]] = True
    return np.asarray(found & ~fails)[:-1]


def _zero(tensor: Tensor, dim: int) -> NDArray[np.bool_]:
    rows = tensor.detach().movedim(dim, 0)
    return np.asarray((rows.reshape(len(rows), -1) == 0).all(1).cpu().numpy())


def _stored_weight(node: fx.Node, network: Network) -> str | None:
    weight = schema_arguments(node)["weight"]
    return network.trace.tensors.get(weight.name) if isinstance(weight, fx.Node) else None


def _passes(node: fx.Node, network: Network, dim: int) -> NDArray[np.bool_] | bool:
    """Tell which channels a layer makes of themselves alone, as depthwise convolutions do."""
    arguments = schema_arguments(node)
    groups, weight = arguments.get("groups", 1), arguments["weight"]
    if not isinstance(groups, int) or groups == 1 or dim:
        return False
    source = arguments["input"]
    known = network.coupling.values.get(source.name, {})
    read = known.get(channel_dim(operator_name(node.target), source, weight))
    made = network.coupling.tensors.get(network.trace.tensors[weight.name], {}).get(dim)
    if read is None or made is None or len(read) > 1 or len(made) > 1:
        return False
    pairs = read.reshape(groups, -1, 1) == made.reshape(groups, 1, -1)
    return np.asarray(pairs.all(1).reshape(-1))


def _scaled_to_zero(node: fx.Node, network: Network) -> NDArray[np.bool_] | bool:
    """Tell which channels a batch norm that alone reads a layer multiplies by 0."""
    users = list(node.users)
    if len(users) != 1 or operator_name(users[0].target) != "batch_norm":
        return False
    arguments = schema_arguments(users[0])
    scale = arguments["weight"]
    name = network.trace.tensors.get(scale.name) if isinstance(scale, fx.Node) else None
    made = schema_arguments(node)["weight"].meta["val"].shape[PRODUCERS[operator_name(node.target)]]
    if name is None or network.tensors[name].numel() != made or arguments["training"]:
        return False
    # Batch norm counts dimension 1; a linear layer over rows makes channels in the last one.
    if operator_name(node.target) == "linear" and node.meta["val"].dim() != 2:
        return False
    return _zero(network.tensors[name], 0)
