"""Operands that are read for their type, device or size only: what they tie, and what not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli.graph.coupling.groups import couple
from prunecli.graph.tracing.trace import trace
from tests.support.complaint_networks import Net, conv, fc
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 8, 8)

CASTS = {
    "type_as": lambda narrow, wide: narrow.type_as(wide),
    "to": lambda narrow, wide: narrow.to(wide),
    "aten.to.other": torch.ops.aten.to.other,
    "new": lambda narrow, wide: narrow + wide.new_ones(narrow.shape[1:]),
}


@pytest.mark.parametrize("cast", CASTS)
@pytest.mark.parametrize("narrow", [8, 16], ids=["narrower", "as wide"])
def test_a_tensor_that_takes_the_type_of_another_is_not_tied_to_it(cast: str, narrow: int) -> None:
    def forward(net, x):
        wide = net.wide(x).relu()
        return net.fc(net.last(CASTS[cast](net.narrow(wide).relu(), wide)).relu().mean((2, 3)))

    net = Net(forward, wide=conv(3, 16), narrow=conv(16, narrow), last=conv(narrow, 8), fc=fc(8))
    coupling = couple(trace(net.eval(), (IMAGE,)))
    assert {group.name: group.width for group in coupling.groups} == {
        "wide": 16, "narrow": narrow, "last": 8,
    }  # fmt: skip
    assert coupling.unfollowed == {}
    result = prunecli.prune(randomize_(net, seed=0).eval(), IMAGE, flops=0.5, align=1)
    assert result.report.verified.max_rel_error < 1e-8


def test_positions_may_take_the_type_of_an_image() -> None:
    def forward(net, x):
        features = net.stem(x).relu()
        return net.last(features) + torch.arange(8).type_as(features)

    net = randomize_(Net(forward, stem=conv(3, 16), last=conv(16, 4)), seed=0).eval()
    result = prunecli.prune(net, IMAGE, flops=0.5, align=1)
    assert [group.name for group in result.report.groups] == ["stem"]


def test_a_weight_that_takes_the_type_of_its_input_is_still_a_weight() -> None:
    def forward(net, x):
        weight = (net.weight * 0.5).type_as(x)
        return net.fc(functional.conv2d(x, weight).relu().mean((2, 3)))

    net = Net(forward, fc=fc(16))
    net.weight = nn.Parameter(torch.randn(16, 3, 3, 3))
    coupling = couple(trace(net.eval(), (IMAGE,)))
    (group,) = coupling.groups
    assert group.width == 16
    assert group.producers == (("weight", 0),)


SIZES = {
    "expand_as": lambda one, other: one.mean((2, 3), keepdim=True).expand_as(other),
    "view_as": lambda one, other: one.flatten(2).view_as(other),
    "reshape_as": lambda one, other: one.reshape(-1).reshape_as(other),
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_tensor_that_takes_the_size_of_another_is_cut_with_it(kind: str) -> None:
    def forward(net, x):
        one, other = net.one(x), net.other(x)
        return net.fc(
            net.last(SIZES[kind](one, other)).mean((2, 3)) + net.beside(other).mean((2, 3))
        )

    net = Net(forward, one=conv(3, 16), other=conv(3, 16), last=conv(16, 8), beside=conv(16, 8),
              fc=fc(8))  # fmt: skip
    coupling = couple(trace(net.eval(), (IMAGE,)))
    (group,) = (item for item in coupling.groups if ("one.weight", 0) in item.producers)
    assert ("other.weight", 0) in group.producers
    result = prunecli.prune(randomize_(net, seed=0).eval(), IMAGE, flops=0.5, align=1)
    assert result.report.verified.max_rel_error < 1e-8


def test_what_is_made_like_a_tensor_follows_its_cut() -> None:
    def forward(net, x):
        features = net.stem(x)
        return net.fc(net.last(torch.zeros_like(features) + 1 + features.relu()).mean((2, 3)))

    net = randomize_(Net(forward, stem=conv(3, 16), last=conv(16, 8), fc=fc(8)), seed=0).eval()
    result = prunecli.prune(net, IMAGE, flops=0.5, align=1)
    assert all(group.after < group.before for group in result.report.groups)
