"""Forwards that say the widths of several layers with one number stay in their own class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 16, 16)


class Halves(nn.Module):
    """Two halves of one layer, of which the second goes on through others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48)
        self.inner = nn.ModuleList(nn.Conv2d(24, 24, 3, padding=1) for _ in range(2))
        self.last = nn.Conv2d(24 * 4, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.norm(self.stem(x)).chunk(2, 1))
        for layer in self.inner:
            parts.append(parts[-1] + layer(parts[-1]).relu())
        return self.last(torch.cat(parts, 1)).mean((2, 3))


class SplitByField(Halves):
    """The same by `split`, with a size that the module keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.half = 24

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.norm(self.stem(x)).split((self.half, self.half), 1))
        for layer in self.inner:
            parts.append(parts[-1] + layer(parts[-1]).relu())
        return self.last(torch.cat(parts, 1)).mean((2, 3))


class OneHeadWidth(nn.Module):
    """Queries, keys and values of three layers, read by one integer; the count of heads is free."""

    def __init__(self) -> None:
        super().__init__()
        self.head_dim, self.scaling = 8, 8**-0.5
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.classes = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=self.scaling)
        x = x + self.o(mixed.transpose(1, 2).reshape(*x.shape[:-1], -1))
        return self.classes(x.mean(1))


class Uneven(Halves):
    """The same halves by two numbers: nothing asks them to be equal."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        count = self.inner[0].weight.shape[1]
        parts = [x[:, : x.shape[1] - count], x[:, x.shape[1] - count :]]
        for layer in self.inner:
            parts.append(parts[-1] + layer(parts[-1]).relu())
        return self.last(torch.cat(parts, 1)).mean((2, 3))


@pytest.mark.parametrize("allocation", ["uniform", "greedy"])
@pytest.mark.parametrize("make", [Halves, SplitByField, OneHeadWidth])
def test_a_model_whose_sizes_are_one_number_is_cut_in_its_own_class(make, allocation):
    torch.manual_seed(0)
    model = randomize_(make()).eval()
    result = prunecli.prune(model, IMAGE, flops=0.5, allocation=allocation, align=1)
    assert (result.report.mode, type(result.model)) == ("module", make)
    assert result.report.verified.limits == ()
    assert result.report.cost.kept["flops"] <= 0.5
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(result.model(x), masked(make, model, result)(x))
    result.model.train()(x).sum().backward()


def masked(make: type[nn.Module], model: nn.Module, result: prunecli.PruneResult) -> nn.Module:
    """Zero what reads removed channels in a copy of the dense model, from the plan alone.

    Products of activations sum over queries' and keys' widths: what makes them is zeroed as well.
    """
    found = make().eval()
    found.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, dims in result.plan.slices.items():
            tensor = found.state_dict()[name]
            made = name.startswith(("q.", "k."))
            for dim, kept in dims.items():
                if (tensor.dim() > 1 and dim == 1) or made:
                    gone = [at for at in range(tensor.shape[dim]) if at not in kept]
                    tensor.index_fill_(dim, torch.tensor(gone), 0.0)
    return found


def test_halves_lose_equally_many_channels_and_not_the_same_ones():
    torch.manual_seed(0)
    result = prunecli.prune(randomize_(Halves()).eval(), IMAGE, flops=0.5, align=1)
    kept = result.plan.slices["stem.weight"][0]
    first, second = ([at % 24 for at in kept if at // 24 == half] for half in (0, 1))
    assert len(first) == len(second)
    assert first != second


def test_halves_by_two_numbers_are_free():
    torch.manual_seed(0)
    model = randomize_(Uneven()).eval()
    result = prunecli.prune(model, IMAGE, flops=0.6, align=1, allocation="greedy")
    kept = result.plan.slices["stem.weight"][0]
    assert result.report.mode == "module"
    assert sum(at < 24 for at in kept) != sum(at >= 24 for at in kept)


def test_where_equal_widths_do_not_reach_the_budget_the_graph_does():
    torch.manual_seed(0)
    model = randomize_(Halves()).eval()
    result = prunecli.prune(model, IMAGE, flops=0.99, exclude=("stem#2",), align=1)
    assert result.report.mode == "graph"
    assert {group.name: group.after < group.before for group in result.report.groups} == {
        "stem": True,
        "stem#2": False,
    }
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(result.model(x), masked(Halves, model, result)(x))
