"""What a forward does in training alone is found without touching the model or the generators."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from prunecli.graph.tracing.in_training import PREFIX, look_at_training
from prunecli.graph.tracing.trace import trace
from tests.support.complaint_networks import Net, conv, fc

EXAMPLE = (torch.zeros(1, 3, 8, 8),)


def looked_at(forward, **parts):
    base = {"stem": conv(3, 8), "norm": nn.BatchNorm2d(8), "fc": fc(8)}
    model = Net(forward, **base, **parts).eval()
    return look_at_training(model, trace(model, EXAMPLE)), model


def plain(net, x):
    x = net.drop(net.norm(net.stem(x)).relu())
    return net.fc(x.mean((2, 3)))


@pytest.mark.parametrize("drop", [nn.Dropout(0.5), nn.Dropout2d(0.3), nn.RReLU(), nn.Identity()])
def test_dropout_and_batch_norm_make_no_difference(drop) -> None:
    found, _ = looked_at(plain, drop=drop)
    assert not found.differs
    assert found.trace is None


def attended(net, x):
    x = net.norm(net.stem(x)).flatten(2).transpose(1, 2)
    return net.fc(net.block(x).mean(1))


def test_attention_has_a_fast_way_in_evaluation_which_makes_no_difference() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert not looked_at(attended, block=block)[0].differs


def test_a_branch_of_training_is_traced_over_the_same_tensors() -> None:
    def forward(net, x):
        x = net.norm(net.stem(x)).relu()
        found = net.fc(x.mean((2, 3)))
        return (found, net.aux(x)) if net.training else found

    found, _ = looked_at(forward, aux=conv(8, 2))
    assert found.differs
    assert {"stem.weight", "aux.weight"} <= set(found.trace.tensors.values())
    assert all(node.name.startswith(PREFIX) for node in found.trace.graph.nodes)
    assert set(found.trace.tensors) <= {node.name for node in found.trace.graph.nodes}


@pytest.mark.parametrize(
    "branch",
    [
        lambda net, x: net.depth(x),
        lambda net, x: x[:, :4].repeat(1, 2, 1, 1) if net.training else x[:, 4:].repeat(1, 2, 1, 1),
        lambda net, x: net.aux(x) if net.training else net.other(x),
        lambda net, x: net.aux(x) if torch.is_grad_enabled() else net.other(x),
        lambda net, x: x + x.detach() if net.training else x,
    ],
)
def test_any_other_call_order_or_position_is_a_difference(branch) -> None:
    def forward(net, x):
        return net.fc(branch(net, net.norm(net.stem(x)).relu()).mean((2, 3)))

    parts = {"depth": StochasticDepth(0.2, "row"), "aux": conv(8, 8), "other": conv(8, 8)}
    found, _ = looked_at(forward, **parts)
    assert found.differs
    assert found.trace is not None


def test_a_forward_that_fails_in_training_counts_as_another_with_its_reason() -> None:
    def forward(net, x, targets=None):
        found = net.fc(net.norm(net.stem(x)).mean((2, 3)))
        return functional.cross_entropy(found, targets) if net.training else found

    found, _ = looked_at(forward)
    assert found.differs
    assert found.trace is None
    assert "target" in found.failure


def test_statistics_attributes_and_generators_are_left_as_they_were() -> None:
    def forward(net, x):
        if net.training:
            net.calls = getattr(net, "calls", 0) + 1
            net.seen.add_(x.mean())
            x = x * random.random() * np.random.rand() + torch.rand_like(x)  # noqa: NPY002
        return net.fc(net.norm(net.stem(x)).mean((2, 3)))

    model = Net(forward, stem=conv(3, 8), norm=nn.BatchNorm2d(8), fc=fc(8))
    model.register_buffer("seen", torch.zeros(()))
    model.norm.eval()
    model.stem.train()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    found = look_at_training(model, trace(model, EXAMPLE))
    assert found.differs
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not hasattr(model, "calls")
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[2])  # noqa: NPY002
    assert all(value.grad is None and value.requires_grad for value in model.parameters())
