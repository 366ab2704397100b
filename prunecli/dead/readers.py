"""Layers that read channels: what a constant becomes behind them, and what can take it over."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from prunecli.graph.operators import (
    LAYERS,
    TRANSPOSED_CONVOLUTIONS,
    operator_name,
    schema_arguments,
    shape_of,
)
from prunecli.graph.tracing.folding import stored_tensors
from prunecli.signals.places import channel_dim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.dead.activations import Seen
    from prunecli.network.traced import Network

NO_BORDER = 1e-12
"""Two positions differ by more than this share of the largest one only where there is a border."""


@dataclass(frozen=True)
class Sink:
    """A vector that moves every output channel of a layer: a bias, or minus a running mean."""

    tensor: str
    sign: float


@dataclass(frozen=True)
class Use:
    """A layer that reads channels, with what was seen of them.

    `closed` says why its weight cannot be changed (then only zeros can go); `even` whether it turns
    a constant into a constant, as zero padding does not; `out` are the atoms of its outputs.
    """

    seen: Seen
    node: fx.Node
    weight: str
    groups: int
    closed: str = ""
    sink: Sink | None = None
    even: bool = True
    out: NDArray[np.int64] | None = None
    shape: tuple[int, ...] = ()

    def columns(self, weight: Tensor) -> Tensor:
        """Return the weight as `[groups, inputs, outputs, kernel]`: a view of a contiguous one."""
        if operator_name(self.node.target) in TRANSPOSED_CONVOLUTIONS:
            return weight.reshape(self.groups, -1, weight.shape[1], weight[0, 0].numel())
        count = len(weight) // self.groups
        return weight.reshape(self.groups, count, weight.shape[1], -1).transpose(1, 2)

    def push(self, constants: NDArray[np.float64], weight: Tensor) -> Tensor:
        """Return what the layer makes of constants alone: `[outputs, positions]`, float64."""
        arguments = schema_arguments(self.node)
        shape = [1] * len(self.shape)
        shape[self.seen.place.dim] = -1
        given = torch.as_tensor(constants, dtype=torch.float64).to(weight.device)
        source = given.view(shape).expand(self.shape)
        operator = operator_name(self.node.target)
        if operator == "linear":
            # Every row is the same.
            return torch.nn.functional.linear(given[None], weight.double()).T
        made: Tensor = self.node.target(  # type: ignore[operator]
            *{**arguments, "input": source, "weight": weight.double(), "bias": None}.values()
        )
        return made.movedim(channel_dim(operator, self.node, arguments["weight"]), 0).flatten(1)


def uses_of(network: Network, seen: Sequence[Seen]) -> list[Use]:
    """Return every reading of channels as the layer that does it, in the order of the graph."""
    nodes = {node.name: node for node in network.trace.graph.nodes}
    own = movable(network)
    counts = Counter(
        network.trace.tensors[source.name]
        for node in network.trace.graph.nodes
        for source in node.all_input_nodes
        if source.name in network.trace.tensors
    )
    # A tensor that is used more than once cannot change for one of its uses.
    alone = frozenset(name for name in own if counts[name] == 1)
    return [_use(one, nodes[one.place.reader], network, alone, own) for one in seen]


def movable(network: Network) -> frozenset[str]:
    """Return the names of the network's own tensors, but for those that others follow from."""
    folding = network.trace.folding
    fixed = set() if folding is None else {*folding.tensors, *folding.sources.values()}
    return frozenset(stored_tensors(network.model)) - fixed


def _use(
    one: Seen, node: fx.Node, network: Network, alone: frozenset[str], own: frozenset[str]
) -> Use:
    operator, arguments = operator_name(node.target), schema_arguments(node)
    weight = arguments.get("weight")
    name = network.trace.tensors.get(weight.name, "") if isinstance(weight, fx.Node) else ""
    closed = _closed(operator, arguments, name, alone, own)
    if closed or not isinstance(weight, fx.Node):
        return Use(one, node, name, 1, closed=closed or f"{operator} reads its constant")
    groups = int(arguments.get("groups", 1))
    channels = channel_dim(operator, node, weight)
    source = arguments["input"]
    use = Use(
        one,
        node,
        name,
        groups,
        sink=_sink(node, channels, network, alone),
        out=network.coupling.values.get(node.name, {}).get(channels),
        shape=shape_of(source, network.trace.batch),
    )
    return dataclasses.replace(use, even=_is_even(use, network.tensors[name]))


def _closed(
    operator: str,
    arguments: Mapping[str, Any],
    name: str,
    alone: frozenset[str],
    own: frozenset[str],
) -> str:
    """Return why the weight of a layer cannot be changed; empty where it can."""
    if operator not in LAYERS:
        return f"{operator} reads its constant"
    if name not in own:
        return "the weight that reads it is computed in the forward"
    if name not in alone:
        return "the weight that reads it is used more than once"
    rest = [value for key, value in arguments.items() if key not in {"input", "weight", "bias"}]
    if any(isinstance(value, fx.Node) for value in pytree.tree_leaves(rest)):
        return "the layer that reads it has sizes computed in the forward"
    return ""


def _is_even(use: Use, weight: Tensor) -> bool:
    # With absolute weights no two taps cancel, so that a tap that is cut off always shows.
    made = use.push(np.ones(use.shape[use.seen.place.dim]), weight.detach().abs())
    spread = made.amax(1) - made.amin(1)
    return bool((spread <= NO_BORDER * made.abs().amax(1)).all())


def _sink(node: fx.Node, channels: int, network: Network, alone: frozenset[str]) -> Sink | None:
    """Return what can take over a constant behind a layer: its bias, or the batch norm behind."""
    bias = schema_arguments(node)["bias"]
    if bias is not None:
        name = network.trace.tensors.get(bias.name, "")
        return Sink(name, 1.0) if name in alone else None
    users = list(node.users)
    if len(users) != 1 or operator_name(users[0].target) != "batch_norm":
        return None
    arguments = schema_arguments(users[0])
    mean = arguments["running_mean"]
    name = network.trace.tensors.get(mean.name, "") if isinstance(mean, fx.Node) else ""
    plain = arguments["input"] is node and not arguments["training"] and channels == 1
    return Sink(name, -1.0) if plain and name in alone else None
