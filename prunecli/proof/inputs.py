"""What a proof runs on: random inputs, perturbed tensors, and tensors with channels masked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.cutting.surgery import Slices
    from prunecli.graph.coupling.groups import ChannelGroup, CouplingGraph

SMALL_IMAGE = 64
"""Side of the images of a proof, where the real ones are much larger."""

Tensors = dict[str, Tensor]
"""Parameters and buffers by name, detached."""


def cast_to(value: Tensor, precision: torch.dtype) -> Tensor:
    """Return a floating-point tensor in a precision; any other as it is."""
    return value.to(precision) if value.is_floating_point() else value


def shrinks(value: Tensor) -> bool:
    """Tell whether an input is a square image that a smaller one may stand for."""
    return value.dim() == 4 and value.shape[2] == value.shape[3] > 2 * SMALL_IMAGE


def random_like(
    value: Tensor, generator: torch.Generator, *, shape: Sequence[int], shrink: bool
) -> Tensor:
    """Return a random input of a shape: normal numbers in float64, integers from those of `value`.

    With `shrink`, images of a smaller side stand for large ones.
    """
    if not value.is_floating_point():
        return _random_integers(value, shape, generator)
    if shrink and shrinks(value):
        # A third of the side costs a ninth of the time, and every tap of a kernel still counts.
        side = max(SMALL_IMAGE, value.shape[2] // 3 // 32 * 32)
        shape = (shape[0], value.shape[1], side, side)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(value.device)


def _random_integers(value: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return the first of the example inputs and, second, one drawn from the range of them all."""
    if not value.dim() or not value.numel():
        return value
    low, high = int(value.min()), int(value.max())
    drawn = torch.randint(low, high + 1, tuple(shape), generator=generator).to(value)
    drawn[0] = value[0]
    return drawn


def jitter(value: Tensor, generator: torch.Generator) -> Tensor:
    """Change an input in its last four bits: one alone may round away."""
    if not value.is_floating_point():
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    return value * (1 + noise * 16 * torch.finfo(value.dtype).eps)


def perturb(state: Tensors, generator: torch.Generator) -> Tensors:
    """Return the state with every vector (bias, scale, statistic) moved off its neutral value."""
    result = {}
    for name, value in state.items():
        is_vector = value.dim() <= 1 or value.numel() == value.shape[0]
        if not value.is_floating_point() or not is_vector or not bool(value.isfinite().all()):
            result[name] = value
            continue
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.device)
        scale = value.abs().mean().clamp(min=1e-3)
        shifted = value * (0.75 + 0.5 * noise)
        positive = name.endswith(("running_var",))
        result[name] = shifted + (0.1 * scale * noise if positive else scale * (noise - 0.5) * 0.4)
    return result


def zero_consumers(
    state: Tensors, coupling: CouplingGraph, slices: Slices, precision: torch.dtype
) -> Tensors:
    """Return the state with every weight zeroed that reads a removed channel.

    Channels that meet each other without a weight between (queries and keys) are zeroed at all
    their sites, biases too: a removed channel must not count there. So are channels that no weight
    reads.
    """
    result = {name: cast_to(value, precision) for name, value in state.items()}
    sites = {
        site
        for group in coupling.groups
        for site in (*zeroed_sites(group), *group.read_in_training)
    }
    for name, dim in sites:
        kept = slices.get(name, {}).get(dim)
        if kept is None or name not in state:
            continue
        mask = torch.zeros(state[name].shape[dim], dtype=precision, device=state[name].device)
        mask[torch.tensor(kept, dtype=torch.int64, device=mask.device)] = 1
        shape = [1] * state[name].dim()
        shape[dim] = -1
        if result[name] is state[name]:
            result[name] = result[name].clone()
        result[name].mul_(mask.view(shape))
    return result


def zeroed_sites(group: ChannelGroup) -> tuple[tuple[str, int], ...]:
    """Return the (tensor, dim) sites at which a removed channel of a group is zeroed."""
    everywhere = group.contracted or group.silent or not group.consumers
    return group.sites if everywhere else group.consumers
