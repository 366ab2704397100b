"""What the presets with a cost term take off for FLOPs, where these are many enough to be seen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecli.network.traced import read_network
from prunecli.signals import score_many

SIDE, INPUTS, CLASSES = 64, 64, 3
# At every position a 3x3 filter over all inputs and an addend of the mean; a column of the head.
MILLIONS_PER_CHANNEL = (SIDE * SIDE * (9 * INPUTS + 1) + CLASSES) / 1e6


@pytest.mark.parametrize(
    ("name", "without", "scale"),
    [("taylor-flops", "taylor", 1.0), ("fisher-flops", "fisher", 0.5)],
)
def test_a_million_flops_cost_a_thousandth(name: str, without: str, scale: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(INPUTS, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, CLASSES),
    ).eval()  # fmt: skip
    images = torch.randn(2, INPUTS, SIDE, SIDE)
    network = read_network(model, [images[:1]])
    found = score_many(
        [name, without],
        network.trace,
        network.coupling,
        network.tensors,
        weights_removed=network.weights_removed(),
        flops_removed=network.flops_removed(),
        batches=lambda: iter([(images, torch.tensor([0, 1]))]),
    )
    taken = scale * found[without] - found[name]
    assert taken.tolist() == pytest.approx([1e-3 * MILLIONS_PER_CHANNEL] * 4, rel=1e-6)
