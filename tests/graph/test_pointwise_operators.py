"""Operators of Python and methods of tensors: cut in graph mode, saved, loaded and exported."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import prunecli
from prunecli.architectures.reference import InputSpec
from tests.support.complaint_networks import Net, conv, fc
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = torch.zeros(1, 3, 8, 8)
INPUT = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)


def masks(x, y):
    first, second = x > 0, y > 0.3
    yield from (first & second, first | second, first ^ second, ~first)
    yield from (first & True, first | False, first.logical_and(second), second.logical_not())
    yield from (first.logical_or(second), first.logical_xor(second), first.bitwise_or(second))


def masks_in_place(x, y):
    kept = x > 0
    kept &= y > 0
    kept |= x > 0.5
    kept ^= y > 0.5
    yield kept


def whole_numbers(x, y):
    first, second = (x * 4).to(torch.int64), (y * 4).to(torch.int64)
    yield from (first & 3, first | 4, first ^ second, ~second, first << 1, second >> 1)
    yield from (first // 2, second % 3, first // (second.abs() + 1), first.remainder(3))
    yield from (first.bitwise_and(second), first.bitwise_left_shift(2), 7 & first, 1 << first.abs())


def arithmetic(x, y):
    yield from (
        1 - x,
        2 / (y.abs() + 1),
        2**x,
        x**2,
        x.abs() ** y,
        5 // (x.abs() + 1),
        5 % (y.abs() + 1),
    )
    yield from (
        x // 0.7,
        x % 0.7,
        x // (y.abs() + 1),
        x.fmod(0.5),
        x.floor_divide(y.abs() + 1),
        -x,
        +x,
    )
    yield from (abs(y), y.round(), torch.rsub(x, 1), x.true_divide(3), x.float_power(2))


def comparisons(x, y):
    yield from (
        x == y,
        x != y,
        x < y,
        x <= y,
        x > y,
        x >= y,
        x.eq(0),
        x.ne(y),
        x.gt(0.1),
        x.isclose(y),
    )
    yield from (
        x.less(y),
        x.greater_equal(0),
        x.not_equal(y),
        (x / 0).isnan(),
        (x / 0).isinf(),
        x.isfinite(),
    )


def second_names(x, y):
    yield from (x.multiply(y), x.subtract(y), x.divide(3), x.negative(), x.absolute(), x.arctan2(y))
    yield from (
        x.arctan(),
        torch.special.expit(x),
        torch.special.erf(y),
        x.fix(),
        x.clip(-1, 1),
        x.sgn(),
    )


def choices(x, y):
    yield from (torch.where(x > 0, x, y), torch.where(x > 0, x, 0.5), torch.where(y > 0, 1.5, y))
    yield from (torch.where(y > 0, 1.0, 2.0), x.clamp(min=y), x.clamp(y, y + 1), x.clamp_max(0.3))
    yield from (
        x.maximum(y),
        torch.fmin(x, y),
        x.masked_fill(y > 0, 0.2),
        torch.lerp(x, y, 0.3),
        x.nan_to_num(),
    )
    yield from (torch.addcmul(x, y, y), x.copysign(y), x.heaviside(y), x.hypot(y), x.logaddexp(y))
    yield x.masked_fill(y > 0, torch.tensor(0.4))


def made_like(x, y):
    yield from (
        torch.ones_like(x),
        torch.zeros_like(y),
        torch.full_like(x, 0.3),
        x.new_full(x.shape, 0.5),
    )
    yield from (x.type_as(y), x.to(y), x.expand_as(y), x.view_as(y), x.reshape_as(y))


FAMILIES = [
    masks,
    masks_in_place,
    whole_numbers,
    arithmetic,
    comparisons,
    second_names,
    choices,
    made_like,
]


def network(family: Callable) -> nn.Module:
    """Return a network that adds up what the operators make of two layers' channels.

    A fixed order of all channels keeps its own class from being cut.
    """

    def forward(net, x):
        first, second = net.first(x)[:, net.order], net.second(x)
        for value in family(first, second):
            first = first + 0.1 * value.to(first.dtype)
        return net.fc(net.last(first).relu().mean((2, 3)))

    net = Net(forward, first=conv(3, 16), second=conv(3, 16), last=conv(16, 8), fc=fc(8))
    net.register_buffer("order", torch.arange(16).flip(0))
    return randomize_(net, seed=0).eval()


@pytest.mark.parametrize("family", FAMILIES, ids=operator.attrgetter("__name__"))
def test_they_are_cut_in_graph_mode_saved_and_loaded(family: Callable, tmp_path: Path) -> None:
    result = prunecli.prune(network(family), IMAGE, flops=0.5, align=1)
    assert result.report.mode == "graph"
    assert not [warning for warning in result.report.warnings if "are frozen" in warning]
    assert all(group.after < group.before for group in result.report.groups if group.before == 16)
    prunecli.save(result, tmp_path / "slim.pt", input=INPUT)
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(prunecli.load(tmp_path / "slim.pt")(x), result.model(x))


@pytest.mark.parametrize("family", [masks, whole_numbers], ids=operator.attrgetter("__name__"))
def test_they_are_exported(family: Callable, tmp_path: Path) -> None:
    result = prunecli.prune(network(family), IMAGE, flops=0.5, align=1)
    assert prunecli.export(result.model, tmp_path / "slim.onnx", input=INPUT).max_rel_error < 1e-4
