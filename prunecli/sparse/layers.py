"""Which weights can be zeroed one by one: those of convolutions and linear layers."""

from __future__ import annotations

import fnmatch
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.errors import GraphError, InputError
from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import operator_name, schema_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from prunecli.network.traced import Network

OPERATORS = {name: made for name, made in PRODUCERS.items() if name != "embedding"}
"""Operators whose weights are summed over, and the dimension on which these make channels."""


@dataclass(frozen=True)
class WeightLayer:
    """A weight that a layer reads: its parameter, shape, and the dimension of its inputs.

    `inputs` are those that one output channel sees (of one group). `reason` says why it stays as it
    is, where it does.
    """

    name: str
    shape: tuple[int, ...]
    input_dim: int
    inputs: int
    reason: str = ""

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def layer(self) -> str:
        """The name of the layer, without `.weight`."""
        return self.name.rpartition(".")[0] or self.name


def weight_layers(network: Network) -> tuple[WeightLayer, ...]:
    """Return the weights of all layers in the order of execution, each once.

    Raises `GraphError` (`NOTHING_TO_CUT`) for a network without any that can be zeroed.
    """
    trace, found = network.trace, {}
    parameters = dict(network.model.named_parameters(remove_duplicate=False))
    computed = set() if trace.folding is None else set(trace.folding.tensors)
    for node in trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in OPERATORS:
            continue
        arguments = schema_arguments(node)
        name = trace.tensors.get(arguments["weight"].name, "")
        if name in parameters and name not in found:
            reason = "its weight is computed in the forward" if name in computed else ""
            found[name] = _layer(name, arguments, OPERATORS[operator], reason)
    if not any(not layer.reason for layer in found.values()):
        raise GraphError(
            f"no weight can be zeroed: {len(found)} layers with weights of their own, all computed "
            "in the forward",
            code="NOTHING_TO_CUT",
            hint="cut channels instead: leave --granularity out",
        )
    return tuple(found.values())


def _layer(name: str, arguments: dict[str, Any], made: int, reason: str) -> WeightLayer:
    weight: fx.Node = arguments["weight"]
    shape = tuple(int(size) for size in weight.meta["val"].shape)
    # Only a transposed convolution has the inputs of all its groups on one dimension.
    groups = int(arguments.get("groups") or 1) if made else 1
    return WeightLayer(name, shape, 1 - made, shape[1 - made] // groups, reason)


def held_fast(
    layers: Sequence[WeightLayer], *, exclude: Sequence[str], only: Sequence[str]
) -> dict[str, str]:
    """Return why layers stay dense, by weight: computed ones, and those that options name.

    Raises `InputError` (`NO_SUCH_LAYER`) for a pattern that matches none, and `GraphError`
    (`NOTHING_TO_CUT`) where no layer is left.
    """
    for flag, patterns in (("--exclude", exclude), ("--only", only)):
        for pattern in patterns:
            if not any(matches(layer, [pattern]) for layer in layers):
                names = ", ".join(layer.layer for layer in layers[:5])
                raise InputError(
                    f"{flag} {pattern} matches no layer with weights",
                    code="NO_SUCH_LAYER",
                    hint=f"layers are called {names} ...",
                )
    reasons = {}
    for layer in layers:
        if layer.reason:
            reasons[layer.name] = layer.reason
        elif exclude and matches(layer, exclude):
            reasons[layer.name] = "--exclude"
        elif only and not matches(layer, only):
            reasons[layer.name] = "not named by --only"
    if len(reasons) == len(layers):
        raise GraphError(
            f"nothing can be zeroed: all {len(layers)} layers are frozen",
            code="NOTHING_TO_CUT",
            hint="give fewer --exclude patterns, or wider --only ones",
        )
    return reasons


def matches(layer: WeightLayer, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern names the layer or its weight."""
    names = (layer.layer, layer.name)
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
