"""What graph mode yields is a network like any other: it trains, is stored, exported, cut again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.graph.emitting.program import build
from tests.support.complaint_networks import Net, conv, fc
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = torch.zeros(1, 3, 8, 8)
INPUT = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)


def baked() -> nn.Module:
    """Return a network of baked-in sizes and picked channels, with dropout and batch norm."""

    def forward(net, x):
        x = net.norm(net.stem(x)).relu()
        x = torch.cat([x.roll(3, 1), x[:, net.order], x[:, ::2], x.flip(1)], 1)
        x = functional.max_pool2d(net.last(net.drop(x)).relu(), 2)
        return net.fc(net.dropout(net.hidden(x.view(-1, 256)).relu()))

    net = Net(
        forward, stem=conv(3, 16), norm=nn.BatchNorm2d(16), last=conv(56, 16),
        drop=nn.Dropout2d(0.5), dropout=nn.Dropout(0.5), hidden=nn.Linear(256, 16), fc=fc(16),
    )  # fmt: skip
    net.register_buffer("order", torch.randperm(16, generator=torch.Generator().manual_seed(0)))
    return randomize_(net, seed=0).eval()


@pytest.fixture(scope="module")
def result() -> prunecli.PruneResult:
    found = prunecli.prune(baked(), IMAGE, flops=0.5, signal="l2", align=1)
    assert found.report.mode == "graph"
    return found


def test_dropout_and_batch_norm_switch_between_training_and_evaluation(result) -> None:
    network = build(json.loads(json.dumps(result.program)), result.model.state_dict())
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(network(x), network(x))
    before = network.get_buffer("norm.running_mean").clone()
    network.train()
    assert not torch.equal(network(x), network(x))
    assert not torch.equal(before, network.get_buffer("norm.running_mean"))


def test_training_lowers_the_loss(result) -> None:
    network = build(result.program, {k: v.clone() for k, v in result.model.state_dict().items()})
    torch.manual_seed(0)
    x, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 5
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        network.train()
        loss = functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(functional.cross_entropy(network.eval()(x), labels).detach()))
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_is_saved_and_loaded_without_the_code_it_came_from(
    result, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"slim{suffix}"
    prunecli.save(result, path, input=INPUT)
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(prunecli.load(path)(x), result.model(x), atol=1e-6)


def test_it_exports_to_onnx_and_computes_the_same(result, tmp_path: Path) -> None:
    parity = prunecli.export(result.model, tmp_path / "slim.onnx", input=INPUT)
    assert parity.max_rel_error < 1e-4


def test_a_table_that_is_made_in_float32_and_then_cast_is_proven() -> None:
    def forward(net, x):
        table = torch.arange(16).to(torch.float32).div(7).sin().expand(8, 16)
        place = net.mix(table.to(net.mix.weight.dtype)).mean()
        other = torch.full((16, 1, 1), 0.3, dtype=x.dtype) if net.follows else 0.3
        return net.fc(net.last(net.stem(x).roll(1, 1) + place + other).mean((2, 3)))

    for follows in (False, True):
        net = Net(
            forward, stem=conv(3, 16), mix=nn.Linear(16, 2), last=conv(16, 16), fc=fc(16),
            follows=follows,
        )  # fmt: skip
        slim = prunecli.prune(randomize_(net, seed=0).eval(), IMAGE, flops=0.5, align=1)
        assert slim.report.mode == "graph"


def test_rare_spellings_of_slices_and_splits_are_cut_as_the_common_ones_are() -> None:
    def forward(net, x):
        x = net.stem(x).relu()
        first, second = torch.split_with_sizes_copy(x, (8, 8), 1)
        x = torch.cat(
            [torch.slice_copy(x, 1, 0, 8), torch.narrow_copy(x, 1, 8, 8), first, second], 1
        )
        x = torch.ops.aten._unsafe_index(x, [None, net.order])
        return net.fc(net.last(x).relu().mean((2, 3)))

    net = Net(forward, stem=conv(3, 16), last=conv(32, 8), fc=fc(8))
    net.register_buffer("order", torch.randperm(32, generator=torch.Generator().manual_seed(0)))
    found = prunecli.prune(
        randomize_(net, seed=0).eval(), IMAGE, flops=0.5, signal="random", align=1
    )
    assert found.report.mode == "graph"
    assert 0 < found.report.groups[0].after < 16
    assert found.report.verified.max_rel_error < 1e-9


def test_it_is_cut_again_and_again(result, tmp_path: Path) -> None:
    second = prunecli.prune(result.model, IMAGE, flops=0.6, signal="l2", align=1)
    assert second.report.cost.before.flops == result.report.cost.after.flops
    assert second.report.verified.max_rel_error < 1e-8
    prunecli.save(second, tmp_path / "second.pt", input=INPUT)
    loaded = prunecli.load(tmp_path / "second.pt")
    third = prunecli.prune(loaded, IMAGE, flops=0.7, signal="l2", align=1)
    assert third.report.cost.before.flops == second.report.cost.after.flops
    assert third.report.verified.max_rel_error < 1e-8
