"""Weights that hide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

if TYPE_CHECKING:
    from torch import Tensor


def randomize_(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give weights and batch-norm statistics values that hide nothing: no zeros, no identities."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1:
                bound = (6 / max(tensor[0].numel(), 1)) ** 0.5  # keeps the variance through ReLU
                uniform(tensor, -bound, bound)
            elif name.endswith(("running_var", "weight")):
                uniform(tensor, 0.5, 1.5)
            else:
                uniform(tensor, -0.5, 0.5)
    return module


def randomize_statistics_(module: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give batch norms random statistics, scales and shifts; everything else stays as it is."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in module.modules():
            if not isinstance(norm, _NormBase):
                continue
            for tensor, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 1.5),
                (norm.weight, 0.5, 1.5),
                (norm.bias, -0.2, 0.2),
            ):
                if tensor is not None:
                    drawn = torch.rand(tensor.shape, generator=generator)
                    tensor.copy_(drawn * (high - low) + low)
    return module
