"""Closed-form costs: hand-computed FLOPs one operator at a time, fvcore, finite differences."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

import prunecli
from prunecli.cost.flops import FLOP_RULES, count_flops
from prunecli.cost.model import CostModel
from prunecli.network.traced import Network, read_network
from tests.support.weights import randomize_


class Call(nn.Module):
    """One function of the input, with modules that it may use."""

    def __init__(self, function, *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


def read(model: nn.Module, *shape: int) -> Network:
    return read_network(model.eval(), [torch.zeros(1, *shape)])


ONE_OPERATOR = {
    # name: (module, input without batch, FLOPs by hand)
    "convolution": (nn.Conv2d(3, 8, 3), (3, 7, 9), 5 * 7 * 8 * 3 * 9),
    "convolution with stride and bias": (
        nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2)), (4, 8, 8), 4 * 4 * 6 * 4 * 15),
    "dilated convolution": (nn.Conv2d(2, 3, 3, dilation=2), (2, 9, 9), 5 * 5 * 3 * 2 * 9),
    "grouped convolution": (
        nn.Conv2d(8, 12, 3, padding=1, groups=4), (8, 5, 5), 25 * 12 * 2 * 9),
    "depthwise convolution": (nn.Conv2d(6, 6, 3, padding=1, groups=6), (6, 5, 5), 25 * 6 * 9),
    "convolution in one dimension": (nn.Conv1d(3, 4, 5), (3, 9), 5 * 4 * 3 * 5),
    "convolution in three dimensions": (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 27 * 3 * 2 * 8),
    "transposed convolution": (
        nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 3, 5), 3 * 5 * 4 * 6 * 4),
    "grouped transposed convolution": (
        nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 3, 3), 9 * 4 * 3 * 9),
    "linear": (nn.Linear(10, 7), (10,), 70),
    "linear over tokens": (nn.Linear(10, 7), (5, 10), 5 * 70),
    "batch norm": (nn.BatchNorm2d(4), (4, 3, 3), 2 * 36),
    "batch norm without affine": (nn.BatchNorm2d(4, affine=False), (4, 3, 3), 36),
    "layer norm": (nn.LayerNorm(8), (5, 8), 5 * 40),
    "layer norm without affine": (
        nn.LayerNorm(8, elementwise_affine=False), (5, 8), 4 * 40),
    "group norm": (nn.GroupNorm(2, 4), (4, 3, 3), 5 * 36),
    "adaptive average pooling": (nn.AdaptiveAvgPool2d(1), (4, 6, 6), 144),
    "matrix product": (Call(lambda x: x @ x.transpose(1, 2)), (5, 7), 5 * 7 * 5),
    "nearest upsampling": (
        Call(lambda x: functional.interpolate(x, scale_factor=2.0)), (3, 4, 4), 3 * 64),
    "bilinear upsampling": (
        Call(lambda x: functional.interpolate(
            x, scale_factor=2.0, mode="bilinear", align_corners=False)), (3, 4, 4), 4 * 3 * 64),
    "operators that are free": (
        Call(lambda x: functional.max_pool2d((x + 1).relu(), 2).flatten(1)), (3, 4, 4), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_OPERATOR)
def test_the_flops_of_one_operator_are_those_counted_by_hand_and_by_fvcore(name: str) -> None:
    model, shape, expected = ONE_OPERATOR[name]
    assert read(model, *shape).cost.dense["flops"] == expected
    assert count_flops(model, (torch.zeros(1, *shape),)) == expected


def test_the_batch_of_the_example_does_not_change_the_cost() -> None:
    model = tower().eval()
    one, many = (read_network(model, [torch.zeros(n, 3, 8, 8)]).cost.dense for n in (1, 5))
    assert one == many


def test_operators_that_are_not_counted_are_listed_with_their_number() -> None:
    model = Call(lambda x, fc: fc(functional.max_pool2d(x.relu().sigmoid(), 2).flatten(1)),
                 nn.Linear(12, 2))  # fmt: skip
    assert read(model, 3, 4, 4).cost.not_counted == {"pointwise": 2, "max_pool2d": 1}


def test_every_counted_operator_says_where_its_count_comes_from() -> None:
    assert all(entry.source == "fvcore.nn.jit_handles" for entry in FLOP_RULES)


# --- parameters, activations, bytes, channels ----------------------------------------------------


def tower() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 64, 5),
    )  # fmt: skip


def test_the_costs_of_a_small_tower_are_those_counted_by_hand() -> None:
    cost = read(tower(), 3, 8, 8).cost
    parameters = 8 * 27 + 2 * 8 + 12 * 2 * 9 + 12 + 5 * 768 + 5
    assert cost.dense == {
        "flops": 64 * 8 * 27 + 2 * 8 * 64 + 64 * 12 * 2 * 9 + 768 * 5,
        "params": parameters,
        "activations": 8 * 64 + 12 * 64 + 5,
        "bytes": 4 * (parameters + 2 * 8) + 8,
        # A group of the grouped layer is cut as a whole: 2 channels before it, 3 after it.
        "channels": 4,
    }


def test_half_precision_weights_take_half_the_bytes() -> None:
    full, half = (read(tower().to(kind), 3, 8, 8) if kind is torch.float32 else
                  read_network(tower().to(kind).eval(), [torch.zeros(1, 3, 8, 8, dtype=kind)])
                  for kind in (torch.float32, torch.bfloat16))  # fmt: skip
    assert half.cost.dense["params"] == full.cost.dense["params"]
    assert half.cost.dense["bytes"] - 8 == (full.cost.dense["bytes"] - 8) / 2


def test_parameters_that_the_network_never_reads_are_counted_as_stored() -> None:
    model = tower()
    model.register_parameter("spare", nn.Parameter(torch.zeros(7, 3)))
    assert read(model, 3, 8, 8).cost.dense["params"] == read(tower(), 3, 8, 8).cost.dense[
        "params"
    ] + 21  # fmt: skip


def test_a_tied_parameter_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[2].weight = model[0].weight
    assert read(model, 6).cost.dense["params"] == 36 + 6 + 6 + 14


def test_a_parameter_with_the_name_of_an_operator_keeps_its_own_size() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.Parameter(torch.ones(2, 5))
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.first(x).relu()) + self.relu.sum()

    network = read(Scaled(), 4)
    assert network.cost.dense["params"] == 10 + 4 * 8 + 8 + 8 * 3 + 3
    narrow = network.cost.cost(np.asarray([2]))
    assert narrow["params"] == 10 + 4 * 2 + 2 + 2 * 3 + 3


def test_a_network_without_parameters_costs_no_parameters() -> None:
    cost = read(nn.Flatten(), 3, 4).cost
    assert cost.dense == {"flops": 0, "params": 0, "activations": 0, "bytes": 0, "channels": 0}


# --- after a cut ---------------------------------------------------------------------------------


def resnet() -> nn.Module:
    return models.resnet18(num_classes=10)


def squeezed() -> nn.Module:
    """Grouped and depthwise layers, a gate, a concatenation, a transposed layer, a linear head."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.depth, self.grouped = (nn.Conv2d(16, 16, 3, padding=1, groups=g) for g in (16, 4))
            self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
            self.up = nn.ConvTranspose2d(32, 6, 2, stride=2)
            self.fc = nn.Linear(6 * 4, 3)

        def forward(self, x):
            x = self.norm(self.stem(x)).relu()
            y = self.grouped(self.depth(x)).relu()
            y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
            z = functional.adaptive_avg_pool2d(self.up(torch.cat([x, y], 1)), 2)
            return self.fc(z.flatten(1))

    return Net()


NETWORKS = {
    "tower": (tower, 8), "resnet": (resnet, 32), "squeezed": (squeezed, 8),
    "shufflenet": (models.shufflenet_v2_x0_5, 32),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_closed_form_equals_fvcore_before_and_after_a_cut(name: str) -> None:
    make, side = NETWORKS[name]
    model, example = randomize_(make(), seed=0).eval(), torch.zeros(1, 3, side, side)
    before = read_network(model, [example]).cost.dense["flops"]
    assert before == count_flops(model, (example,))
    result = prunecli.prune(model, example, flops=0.6, align=1, signal="random", seed=3)
    after = result.report.cost.after
    assert after.flops == count_flops(result.model, (example,))
    assert after.params == sum(value.numel() for value in result.model.parameters())
    state = result.model.state_dict().values()
    assert after.bytes == sum(value.numel() * value.element_size() for value in state)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_equals_finite_differences(name: str) -> None:
    make, side = NETWORKS[name]
    cost = read(make(), 3, side, side).cost
    widths = np.random.default_rng(0).integers(1, cost.dense_widths + 1)
    for kind in cost.kinds:
        found = cost.gradient(kind, widths)
        for group in range(widths.size):
            more, less = widths.astype(float), widths.astype(float)
            # A cost is at most quadratic in one width: central differences are exact.
            more[group] += 0.5
            less[group] -= 0.5
            difference = cost.cost(more)[kind] - cost.cost(less)[kind]
            assert found[group] == pytest.approx(difference, rel=1e-9, abs=1e-6)


def test_the_flops_that_go_with_single_channels_add_up_to_what_is_counted_anew() -> None:
    def chain(first: int, second: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2), nn.Flatten(), nn.Linear(second * 9, 4),
        )  # fmt: skip

    example = (torch.zeros(1, 3, 8, 8),)
    widths, gone = np.asarray([6, 5]), 0.0
    cost = read(chain(6, 5), 3, 8, 8).cost
    for group in (0, 1, 1, 0, 0, 1):
        gone += cost.gradient("flops", widths)[group]
        widths[group] -= 1
        left = count_flops(chain(*widths.tolist()).eval(), example)
        assert cost.dense["flops"] - gone == left


def test_the_share_of_a_group_is_what_goes_when_it_goes_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(54, 2)
    )
    first, norm, second, head = 9 * 24, 2 * 9 * 8, 9 * 48, 108
    shares = read(model, 3, 3, 3).cost.share("flops") * (first + norm + second + head)
    assert shares.tolist() == pytest.approx([first + norm + second, second + head])


def test_the_share_of_tensors_is_that_of_the_operators_that_read_them() -> None:
    cost = read(tower(), 3, 8, 8).cost
    total = cost.dense["flops"]
    assert cost.share_of_tensors({"0.weight"}) == pytest.approx(64 * 8 * 27 / total)
    assert cost.share_of_tensors({"3.weight", "6.weight"}) == pytest.approx(
        (64 * 12 * 18 + 768 * 5) / total
    )
    assert cost.share_of_tensors(set()) == 0.0


def test_the_weights_removed_by_a_channel_are_its_own_and_its_consumers() -> None:
    chain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 2)
    )
    head = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Flatten(), nn.Linear(6 * 16, 10))
    assert read(chain, 3, 8, 8).weights_removed()[:4].tolist() == [73] * 4
    assert read(head, 4, 4, 4).weights_removed().tolist() == [197] * 6


def test_reading_the_cost_leaves_the_model_as_it_was() -> None:
    model = tower()
    before = copy.deepcopy(model.state_dict())
    cost = read(model, 3, 8, 8).cost
    assert isinstance(cost, CostModel)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
