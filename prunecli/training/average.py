"""A running average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """Holds `model`, whose weights are the average of another's over its steps.

    The decay grows with the steps, min(decay, (1 + t) / (10 + t)), so that short runs are not
    dominated by the start. Integer buffers are copied. Source: Polyak, Juditsky 1992.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights of `model` after `step` steps, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for mean, value in zip(_tensors(self.model), _tensors(model), strict=True):
            if mean.is_floating_point():
                averaged.append(mean)
                current.append(value)
            else:
                mean.copy_(value)
        torch._foreach_lerp_(averaged, current, 1 - decay)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
