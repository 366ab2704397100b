"""What an unreachable budget names: the layers that keep most whatever is cut, and why."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import prunecli
from prunecli.cost.flops import count_flops
from prunecli.errors import GateError
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 8, 8)


class Competing(nn.Module):
    """The channels of the second of three layers compete in a softmax, and so stay."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 64, 3, padding=1)
        self.third = nn.Conv2d(64, 32, 3, padding=1)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.second(self.first(x).relu()).softmax(1)
        return self.head(self.third(x).relu().mean((2, 3)))


def refused(**options) -> GateError:
    with pytest.raises(GateError) as caught:
        prunecli.prune(randomize_(Competing(), seed=0).eval(), IMAGE, **options)
    assert caught.value.code == "INFEASIBLE_BUDGET"
    return caught.value


def shares_in(where: str) -> dict[str, float]:
    return {name: float(share) for name, share in re.findall(r"(\S+) ([\d.e-]+) % \(", where)}


def test_the_shares_are_those_of_the_narrowest_network_in_the_dense_cost() -> None:
    error = refused(flops=0.001, align=1)
    dense = count_flops(Competing().eval(), (IMAGE,))
    positions = 8 * 8
    expected = {  # one channel of the first and of the third layer is left
        "second": 1 * 64 * 9 * positions,
        "third": 64 * 1 * 9 * positions,
        "first": 3 * 1 * 9 * positions,
    }
    assert shares_in(error.where) == pytest.approx(
        {name: 100 * flops / dense for name, flops in expected.items()}, rel=0.05
    )
    lowest = (sum(expected.values()) + 10) / dense
    assert float(error.message.rpartition(" ")[2]) == pytest.approx(lowest, abs=6e-4)


def test_every_layer_has_its_reason() -> None:
    where = refused(flops=0.001, align=1).where
    assert re.search(
        r"second \S+ % \(softmax lets these channels compete, \S+test_remaining.py:\d+\)", where
    )
    assert re.search(r"third \S+ % \(1 of 32 channels are the least, and it reads 64 that", where)


@pytest.mark.parametrize(
    ("options", "reason", "advice"),
    [
        ({"exclude": ("third",)}, "third 65.6 %", "fewer --exclude patterns"),
        ({"exclude": ("third",)}, "(--exclude)", "fewer --exclude patterns"),
        ({"only": ("first",)}, "(not named by --only)", "more --only patterns"),
        ({"align": 16}, "(has only 16 channels at --align 16)", "a smaller --align"),
        ({"min_width": 12}, "12 of 32 channels are the least", "a smaller --align or --min-width"),
        ({"align": 4}, "4 of 32 channels are the least", "a smaller --align or --min-width"),
    ],
)
def test_what_the_options_hold_is_named_with_the_option(options, reason: str, advice: str) -> None:
    error = refused(flops=0.001, **options)
    assert reason in error.where
    assert advice in error.hint
    assert "would reach lower" in error.hint


def test_where_no_option_would_help_none_is_named() -> None:
    assert "would reach lower" not in refused(flops=0.001, align=1).hint


def test_of_parameters_the_layers_that_store_most_are_named() -> None:
    shares = shares_in(refused(params=0.001, align=1).where)
    total = sum(value.numel() for value in Competing().parameters())
    # weights and biases of one layer count together
    assert shares["second"] == pytest.approx(100 * (9 * 64 + 64) / total, rel=0.05)
    assert shares["third"] == pytest.approx(100 * (9 * 64 + 1) / total, rel=0.05)


def test_the_output_layer_is_named_where_it_is_what_stays() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1000))
    with pytest.raises(GateError) as caught:
        prunecli.prune(model, torch.randn(1, 8), flops=0.01, align=1)
    assert re.search(r"2 6\.\d % \(output of the model\)", caught.value.where)


def test_a_limit_on_channels_names_groups() -> None:
    shares = shares_in(refused(sparsity=0.99, align=8).where)
    assert shares == pytest.approx({"first": 100 * 8 / 48, "third": 100 * 8 / 48}, rel=0.05)
