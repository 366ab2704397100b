"""Weight energy: what the weights of a layer amount to, without any image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.importance.measure import Measured, Numbers, register

if TYPE_CHECKING:
    from torch import Tensor

    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.network.traced import Network


@register(
    "energy",
    summary="Mean squared weight of what makes a group, batch norm folded in; needs no images.",
    needs_data=False,
)
def energy(measured: Measured) -> Numbers:
    """Return, per group, the squared weights that make its channels over their number.

    A batch norm right behind a layer is folded into it first: a layer and its batch norm can share
    any factor between them without a change. Biases do not count. NaN where no weight of two
    dimensions or more makes a group.
    """
    network = measured.network
    scales = _norm_scales(network)
    return np.asarray([_of_group(network, group, scales) for group in network.coupling.groups])


def _of_group(network: Network, group: ChannelGroup, scales: dict[str, Tensor]) -> float:
    total, count = 0.0, 0
    for name, dim in group.producers:
        weight = network.tensors[name]
        if weight.dim() < 2:
            continue
        atoms = network.coupling.tensors[name][dim]
        own = ((atoms >= group.first) & (atoms < group.first + group.width)).any(0)
        rows = weight.detach().double().movedim(dim, 0).flatten(1).square().sum(1)
        scale = scales.get(name)
        if scale is not None and scale.shape == rows.shape:
            rows = rows * scale.square()
        total += float(rows[torch.as_tensor(own)].sum())
        count += int(own.sum()) * weight.numel() // weight.shape[dim]
    return total / count if count else np.nan


def _norm_scales(network: Network) -> dict[str, Tensor]:
    """Return what the batch norm behind a layer multiplies its outputs with, by weight."""
    trace, tensors = network.trace, network.tensors
    found = {}
    for node in trace.graph.nodes:
        if node.op != "call_function" or operator_name(node.target) != "batch_norm":
            continue
        arguments = schema_arguments(node)
        layer = arguments["input"]
        weight = (
            schema_arguments(layer)["weight"]
            if layer.op == "call_function" and operator_name(layer.target) in PRODUCERS
            else None
        )
        names = [arguments["running_var"], arguments["weight"]]
        known = [trace.tensors.get(value.name) if value is not None else None for value in names]
        if weight is None or weight.name not in trace.tensors or known[0] is None:
            continue
        scale = (tensors[known[0]].detach().double() + arguments["eps"]).rsqrt()
        if known[1] is not None:
            scale = scale * tensors[known[1]].detach().double()
        found[trace.tensors[weight.name]] = scale
    return found
