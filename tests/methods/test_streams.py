"""Mixed connectivity: writers apart, what follows of their gates, and the network that is left."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.gating.bank import GateBank, gated_network
from prunecli.gating.choose import gateable
from prunecli.methods.learning.streams import Streams, make_streams
from prunecli.methods.setup import narrower_network
from prunecli.network.traced import read_network
from tests.support.weights import randomize_

BASIC = torchvision.models.resnet.BasicBlock

NETWORKS = {
    "padded shortcuts": lambda: cifar_resnet(depth=14),
    "projections": lambda: torchvision.models.ResNet(BASIC, [1, 2, 1, 1], num_classes=7),
    "depthwise": lambda: torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=7),
    "squeeze and excitation": lambda: timm.create_model("mobilenetv3_small_050", num_classes=7),
    "attention": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=3, num_classes=7
    ),
    "norms first": lambda: timm.create_model(
        "resnetv2_50", layers=(1, 1, 1, 1), channels=(16, 24, 32, 40), num_classes=7
    ),
}


@functools.cache
def streams_of(name: str) -> Streams:
    torch.manual_seed(0)
    model = randomize_(NETWORKS[name](), seed=3).eval()
    return make_streams(read_network(model, (torch.randn(2, 3, 32, 32),)))


def drawn(streams: Streams, seed: int, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Return the gated atoms, and a random choice of what is open of all of them, settled."""
    gated, _ = gateable(streams.network, streams.held(), written=streams.made)
    random = np.random.default_rng(seed)
    opened = np.ones(gated.size, np.bool_)
    opened[gated] = random.random(int(gated.sum())) < share
    may_close = streams.may_close(gated)
    for group in streams.network.coupling.groups:
        if gated[group.atoms].any() and not may_close[group.atoms].any():
            opened[group.first] = True
    return gated, streams.settled(opened)


def outputs(module: nn.Module) -> torch.Tensor:
    images = torch.randn(
        2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        return module.double().eval()(images)


def test_a_stream_is_written_by_what_begins_it_and_by_its_blocks():
    names = [writer.name for writer in streams_of("projections").whole.untied.writers]
    assert names == [
        "bn1", "layer1.0", "layer2.0.downsample.1", "layer2.0", "layer2.1",
        "layer3.0.downsample.1", "layer3.0", "layer4.0.downsample.1", "layer4.0",
    ]  # fmt: skip
    padded = streams_of("padded shortcuts")
    assert [writer.name for writer in padded.whole.untied.writers][:2] == ["bn1", "layer1.0"]
    # Slots of the last stage: 16 of the first, 16 that padding adds to the second, 32 to the third.
    # A slot is there once it is written; of a stream between two blocks, some may not be yet.
    parts = [group.width for group in padded.network.coupling.groups if not group.producers]
    assert sum(parts) == 2 * 16 + 2 * 32 + 2 * 64 + 16


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_open_costs_what_the_network_costs_that_is_left(name):
    streams = streams_of(name)
    for kind in ("flops", "params", "activations", "bytes"):
        assert streams.network.cost.dense[kind] == streams.whole.cost.dense[kind]
    _, opened = drawn(streams, seed=5)
    assert not opened.all()
    groups = streams.network.coupling.groups
    counts = np.asarray([int(opened[group.atoms].sum()) for group in groups])
    left, keep = streams.left(opened)
    widths = np.asarray([int(keep[group.atoms].sum()) for group in left.coupling.groups])
    assert left.writes
    for kind in ("flops", "params", "activations", "bytes"):
        found = streams.cost(opened, counts)[kind]
        assert left.cost.cost(widths)[kind] == pytest.approx(found, rel=1e-12)
    module, _ = left.graph_network(keep)
    assert left.cost.cost(widths)["params"] == sum(value.numel() for value in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_closed_writers_is_the_one_that_is_left_and_that_is_proven(name):
    streams = streams_of(name)
    gated, opened = drawn(streams, seed=2)
    bank = GateBank(
        streams.places(gated, "readers"),
        gated,
        trained=lambda bank: bank.logits,
        tested=lambda bank: bank.mask,
        slots=streams.hard,
    )
    bank.active = True
    bank.mask.copy_(torch.as_tensor(opened[gated], dtype=torch.float32))
    network = streams.network
    masked = outputs(gated_network(network, bank))
    left, keep = streams.left(opened)
    cut, error = narrower_network(left, keep, seed=0)
    assert error < 1e-8
    cut = outputs(cut)
    dense = outputs(network.graph_network(np.ones_like(opened))[0])
    scale = float(cut.abs().max())
    assert float((masked - cut).abs().max()) < 1e-9 * scale
    assert float((dense - cut).abs().max()) > 1e-6 * scale


def test_gates_multiplied_into_weights_for_good_are_gates_of_what_is_written():
    streams = streams_of("projections")
    gated, opened = drawn(streams, seed=4, share=0.8)
    bank = GateBank(
        streams.places(gated, "readers"),
        gated,
        trained=lambda bank: bank.logits,
        tested=lambda bank: bank.mask,
        slots=streams.hard,
    )
    bank.active = True
    fractions = torch.rand(int(gated.sum()), generator=torch.Generator().manual_seed(0)) + 0.1
    bank.mask.copy_(fractions * torch.as_tensor(opened[gated]))
    module = gated_network(streams.network, bank)
    expected = outputs(module)
    plain, _ = streams.network.graph_network(np.ones_like(opened))
    plain.double()
    bank.fold_(bank.mask, dict(plain.named_parameters()))
    torch.testing.assert_close(outputs(plain), expected)


def test_a_block_without_output_or_with_an_empty_layer_is_closed_and_deleted():
    streams = streams_of("padded shortcuts")
    first, second = streams.insides[0], streams.insides[1]
    opened = np.ones(streams.network.coupling.atom_count, np.bool_)
    opened[first.made] = False
    opened[second.layers[0]] = False
    settled = streams.settled(opened)
    assert not settled[first.layers[0]].any()
    assert not settled[second.made].any()
    left, _ = streams.left(settled)
    assert [block.name for block in left.deleted] == [first.block.name, second.block.name]
    assert not left.writes


def test_a_slot_is_expected_to_live_once_any_of_its_writers_has_written():
    streams = streams_of("padded shortcuts")
    apart, count = streams.whole.untied, streams.network.coupling.atom_count
    gates = torch.rand(count + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = streams.expected(gates)
    names = [writer.name for writer in apart.writers]
    assert names == [
        "bn1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"
    ]  # fmt: skip
    made = [gates[apart.made(writer)] for writer in apart.writers]
    slots = [found[apart.slots(writer)] for writer in apart.writers]
    dead = 1 - made[0]
    torch.testing.assert_close(slots[0], 1 - dead)
    dead = dead * (1 - made[1])
    torch.testing.assert_close(slots[1], 1 - dead)
    dead = dead * (1 - made[2])
    # The slots of the first stage are the middle ones of the second, behind 8 that padding adds.
    torch.testing.assert_close(slots[3][8:24], 1 - dead * (1 - made[3][8:24]))
    torch.testing.assert_close(slots[3][:8], made[3][:8])
    assert set(streams.hard(gates)[streams.slots].tolist()) == {1.0}


def test_a_slot_that_what_begins_the_stream_leaves_alone_is_new_where_a_block_writes_it():
    streams = streams_of("projections")
    apart = streams.whole.untied
    by_name = {writer.name: writer for writer in apart.writers}
    begins, block = by_name["layer2.0.downsample.1"], by_name["layer2.1"]
    opened = np.ones(streams.network.coupling.atom_count, np.bool_)
    opened[apart.made(begins)[3:]] = False
    opened[apart.made(by_name["layer2.0"])] = False
    opened[apart.made(block)[:90]] = False
    left, keep = streams.left(streams.settled(opened))
    assert [each.name for each in left.deleted] == ["layer2.0"]
    module, error = narrower_network(left, keep, seed=0)
    assert error < 1e-8
    shapes = {name: tuple(value.shape) for name, value in module.named_parameters()}
    # 3 slots begin, 38 are new with the block, 87 are dead.
    assert shapes["layer2.0.downsample.0.weight"][0] == 3
    assert shapes["layer2.1.conv2.weight"][0] == 38
    assert shapes["layer2.1.conv1.weight"][1] == 3
    assert shapes["layer3.0.conv1.weight"][1] == 41
