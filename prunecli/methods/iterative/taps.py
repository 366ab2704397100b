"""Hooks that record values and gradients during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from prunecli.signals.curvature import tracked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class Tap(nn.Module):
    """Passes a value on; while gradients are taken it keeps the value, and its gradient to come."""

    def __init__(self) -> None:
        super().__init__()
        self.value: Tensor | None = None

    def forward(self, value: Tensor) -> Tensor:
        """Return the value."""
        if not torch.is_grad_enabled() or not value.is_floating_point():
            return value
        self.value = tracked(value)
        if not self.value.is_leaf:
            self.value.retain_grad()
        return self.value


def add_taps_(network: fx.GraphModule, nodes: Collection[str]) -> dict[str, Tap]:
    """Put a tap behind every node of these names; return the taps by name of their node."""
    taps = {node.name: Tap() for node in network.graph.nodes if node.name in nodes}
    put_behind_(network, taps)
    return taps


def put_behind_(network: fx.GraphModule, listeners: Mapping[str, nn.Module]) -> None:
    """Pass the value of every node of these names through its listener, for all that read it."""
    graph = network.graph
    for node in list(graph.nodes):
        if node.name not in listeners:
            continue
        place = f"_tap_{list(listeners).index(node.name)}"
        network.add_module(place, listeners[node.name])
        with graph.inserting_after(node):
            tapped = graph.call_module(place, (node,))
        node.replace_all_uses_with(tapped, delete_user_cb=lambda user, own=tapped: user is not own)
    graph.lint()
    network.recompile()


def heard(
    taps: Mapping[str, Tap], images: int, *, scale: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the values of the last pass and the gradients of every image's own loss; forget them.

    Both are float32, whatever the precision of the pass.

    The pass took the gradient of `scale` times the mean loss of `images` images. A value that the
    loss does not depend on has gradients of zero.
    """
    values: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    for name, tap in taps.items():
        value, tap.value = tap.value, None
        if value is None:
            continue
        given = value.grad
        # Sums over a channel are taken of these: in the few digits of bf16 they would go astray.
        values[name] = value.detach().float()
        gradients[name] = torch.zeros_like(values[name])
        if given is not None:
            gradients[name] = given.float() * (images / scale)
    return values, gradients
