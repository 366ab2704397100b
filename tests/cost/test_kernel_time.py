"""The time of a network by a staircase, against sums by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prunecli.cost.kernel_time import kernel_time
from prunecli.cost.staircase import (
    CONV,
    DEPTHWISE,
    ELEMENT,
    GEMM,
    POINTWISE,
    blocked,
)
from prunecli.network.traced import read_network

STAIRS = dataclasses.replace(
    blocked(8, name="blocks"),
    nanoseconds={CONV: 2.0, POINTWISE: 3.0, DEPTHWISE: 5.0, GEMM: 7.0, ELEMENT: 11.0},
)


def up(width: int) -> int:
    return -(-width // 8) * 8


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)).relu()
        x = self.last(self.deep(x) + x).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(("first", "last"), [(16, 24), (12, 24), (4, 12), (8, 8)])
def test_time_is_the_sum_over_operators_of_begun_blocks(first: int, last: int):
    network = read_network(Mixed().eval(), [torch.zeros(1, 4, 6, 6)])
    names = [group.name for group in network.coupling.groups]
    assert names == ["first", "last"]
    found = kernel_time(network.trace, network.coupling, STAIRS)
    assert found is not None
    expected = (
        2 * 36 * 9 * 8 * up(first)  # 4 inputs are a block of 8; norm and ReLU run inside of it
        + 5 * 36 * 9 * up(first)
        + 11 * 36 * first  # the sum
        + 3 * 36 * up(first) * up(last)
        + 11 * last  # the mean; the ReLU runs inside of the convolution
        + 7 * up(last) * 8
    )
    assert found(np.asarray([first, last])) == pytest.approx(expected)


def test_groups_of_a_convolution_are_small_convolutions():
    model = nn.Sequential(
        nn.Conv2d(4, 32, 1), nn.Conv2d(32, 32, 1, groups=4), nn.Flatten(), nn.Linear(32 * 4, 8)
    ).eval()
    network = read_network(model, [torch.zeros(1, 4, 2, 2)])
    found = kernel_time(network.trace, network.coupling, STAIRS)
    assert found is not None
    linear = 7 * up(128) * 8
    whole = 3 * 4 * 8 * 32 + 4 * 3 * 4 * 8 * 8 + linear
    assert found(network.cost.dense_widths) == pytest.approx(whole)
