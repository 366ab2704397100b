"""What makes a gate of a logit: pure functions of tensors, one gate each."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LOW, HIGH, TEMPERATURE = -0.1, 1.1, 2 / 3
"""The interval that a hard-concrete gate is stretched to, and its temperature."""

OPEN_ABOVE = -TEMPERATURE * math.log(-HIGH / LOW)
"""The logit above which a hard-concrete gate is more likely open than not: -1.598597."""

SMALLEST_DRAW = 1e-6
"""How near 0 and 1 a uniform draw may come: the logarithm of a float32 zero is infinite."""


def hard_concrete(logits: Tensor, draws: Tensor) -> Tensor:
    """Return gates in [0, 1], drawn: `draws` are uniform numbers in (0, 1), one per logit.

    Source: Louizos et al. 2018 (arXiv 1712.01312), as used by Lemaire et al. 2019 (BAR).

    >>> hard_concrete(torch.zeros(3), torch.tensor([.05, .2, .5])).tolist()
    [0.0, 0.0333..., 0.5]
    """
    draws = draws.clamp(SMALLEST_DRAW, 1 - SMALLEST_DRAW)
    noise = draws.log() - (-draws).log1p()
    return _stretched(((noise + logits) / TEMPERATURE).sigmoid())


def hard_concrete_median(logits: Tensor) -> Tensor:
    """Return the gates of evaluation: those of the median draw, 1/2."""
    return _stretched((logits / TEMPERATURE).sigmoid())


def open_probability(logits: Tensor) -> Tensor:
    """Return the probability that a hard-concrete gate is above 0, differentiable."""
    return (logits - OPEN_ABOVE).sigmoid()


def _stretched(gates: Tensor) -> Tensor:
    return (gates * (HIGH - LOW) + LOW).clamp(0, 1)


SHAPES = ("one", "logistic", "tanh")
"""The functions that shape the gradient of a trainable gate, by name."""


def gradient_shape(name: str, weights: Tensor) -> Tensor:
    """Return g(w), bounded and positive: 1, 4 s(w)(1 - s(w)) of the logistic s, or 1 - tanh(w)^2.

    Which one the authors of the trainable gate used for their tables is not known to us.
    """
    if name == "one":
        return torch.ones_like(weights)
    if name == "logistic":
        half = weights.sigmoid()
        return 4 * half * (1 - half)
    return 1 - weights.tanh().square()


TEETH = 1e5
"""Teeth of the saw per unit (M in the paper): more than 1e6 are lost in float32."""


def sawtooth_gate(
    weights: Tensor, threshold: float | Tensor, shape: str = "one", teeth: float = TEETH
) -> Tensor:
    """Return the trainable gate as it is published: b(w) + s(w) g(w).

    b is 1 where w is at or above the threshold and else 0, s(w) = (M w - floor(M w)) / M is below
    1 / M with slope 1, g is the `shape`. Source: Kim et al. 2020 (arXiv 1904.10921).
    """
    shifted = weights - threshold
    saw = (teeth * shifted - (teeth * shifted).floor()) / teeth
    return (shifted >= 0).to(weights.dtype) + saw * gradient_shape(shape, shifted)


def straight_gate(weights: Tensor, threshold: float | Tensor, shape: str = "one") -> Tensor:
    """Return b(w) with the gradient g(w): the published gate without its error of 1 / M."""
    return _Straight.apply(weights - threshold, shape)  # type: ignore[no-any-return]


class _Straight(torch.autograd.Function):
    """0 or 1 by the sign; backward the shape of the gradient."""

    @staticmethod
    def forward(ctx: Any, shifted: Tensor, shape: str) -> Tensor:
        ctx.shape = shape
        ctx.save_for_backward(shifted)
        return (shifted >= 0).to(shifted.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (shifted,) = ctx.saved_tensors
        return gradients[0] * gradient_shape(ctx.shape, shifted), None


def masked_gate(logits: Tensor, mask: Tensor) -> Tensor:
    """Return `mask`, with the gradient of the logits passed straight through."""
    return mask + (logits - logits.detach())  # in this order the sum is exactly the mask
