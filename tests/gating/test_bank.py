"""Gates in traced networks: a closed gate is a cut, a fractional one is part of the weight."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.errors import GraphError
from prunecli.gating.bank import GateBank, add_gates_, gated_network
from prunecli.gating.choose import gateable
from prunecli.gating.places import places_of
from prunecli.network.traced import Network, read_network
from prunecli_sample_models import networks as samples
from tests.support.weights import randomize_


def vit(**own) -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=3, **own
    )


NETWORKS = {
    "padded shortcuts": lambda: cifar_resnet(depth=8),
    "plain": samples.digits_vgg,
    "projections": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7
    ),
    "bottlenecks": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=7, width_per_group=16
    ),
    "grouped": lambda: torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=7, groups=4,
        width_per_group=8,
    ),
    "depthwise": lambda: torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=7),
    "squeeze and excitation": lambda: timm.create_model("mobilenetv3_small_050", num_classes=7),
    "concatenations": lambda: torchvision.models.DenseNet(8, (2, 2, 2), 16, num_classes=7),
    "fire": lambda: torchvision.models.squeezenet1_1(num_classes=7),
    "shuffles": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=7),
    "ghosts": lambda: timm.create_model("ghostnet_050", num_classes=7),
    "attention": lambda: vit(num_classes=7),
    "layer norm": lambda: timm.create_model(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(16, 24, 32, 40), num_classes=7
    ),
}  # fmt: skip


def read(name: str) -> Network:
    torch.manual_seed(0)
    model = randomize_(NETWORKS[name](), seed=3).eval()
    shape = (1, 8, 8) if name == "plain" else (3, 32, 32)
    return read_network(model, (torch.randn(2, *shape),))


def some(network: Network, gated: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a random choice of atoms that leaves every group one at least."""
    random = np.random.default_rng(seed)
    keep = np.ones(gated.size, np.bool_)
    for group in network.coupling.groups:
        if gated[group.atoms].any():
            own = random.random(group.width) < 0.6
            own[random.integers(group.width)] = True
            keep[group.atoms] = own
    return keep


def bank_of(network: Network, gated: np.ndarray) -> GateBank:
    bank = GateBank(
        places_of(network, gated),
        gated,
        trained=lambda bank: bank.logits,
        tested=lambda bank: bank.mask,
    )
    bank.active = True
    return bank


def outputs(module: nn.Module, network: Network) -> torch.Tensor:
    shape = network.trace.example[0].shape
    images = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return module.double().eval()(images)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_closed_gates_is_the_cut_one(name):
    network = read(name)
    gated, reasons = gateable(network, {})
    assert gated.any(), reasons
    keep, bank = some(network, gated), bank_of(network, gated)
    bank.mask.copy_(torch.as_tensor(keep[gated], dtype=torch.float32))
    masked = outputs(gated_network(network, bank), network)
    cut = outputs(network.graph_network(keep)[0], network)
    dense = outputs(network.graph_network(np.ones_like(keep))[0], network)
    scale = float(cut.abs().max())
    assert float((masked - cut).abs().max()) < 1e-9 * scale
    assert float((dense - cut).abs().max()) > 1e-6 * scale  # something was masked


@pytest.mark.parametrize("name", ["padded shortcuts", "attention", "concatenations"])
def test_a_fractional_gate_is_one_that_is_multiplied_into_the_weights(name):
    network = read(name)
    gated, _ = gateable(network, {})
    bank = bank_of(network, gated)
    bank.mask.uniform_(0.2, 1.0, generator=torch.Generator().manual_seed(4))
    module = gated_network(network, bank)
    weights = [module.get_parameter(weight) for weight in bank.weights]
    folded = {
        weight: value.detach().clone()
        for weight, value in zip(bank.weights, bank.eval()(*weights), strict=True)
    }
    expected = outputs(module, network)
    plain = network.graph_network(np.ones(gated.size, np.bool_))[0]
    for weight, value in folded.items():
        plain.get_parameter(weight).data.copy_(value)
    assert torch.allclose(outputs(plain, network), expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_gate_is_that_of_the_weights_that_it_scales():
    network = read("plain")
    gated, _ = gateable(network, {})
    bank = bank_of(network, gated)
    torch.nn.init.ones_(bank.logits)
    module = gated_network(network, bank).double().train()
    module.eval()
    bank.train()  # gates of training, statistics of evaluation
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    loss = module(images).square().sum()
    (found,) = torch.autograd.grad(loss, bank.logits)
    step = 1e-6
    for at in (0, 5, len(found) - 1):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bank.logits[at] += sign * step
                values.append(float(module(images).square().sum()))
                bank.logits[at] -= sign * step
        assert float(found[at]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_before_the_search_every_gate_is_open():
    network = read("plain")
    gated, _ = gateable(network, {})
    bank = bank_of(network, gated)
    bank.mask.zero_()
    bank.active = False
    dense = outputs(network.graph_network(np.ones_like(gated))[0], network)
    assert torch.equal(outputs(gated_network(network, bank), network), dense)


def test_groups_without_gates_are_told_with_the_reason():
    network = read("layer norm")
    held = {network.coupling.groups[0].name: "--exclude"}
    gated, reasons = gateable(network, held)
    assert reasons[network.coupling.groups[0].name] == "--exclude"
    inexact = [group.name for group in network.coupling.groups if not group.exact]
    assert all("norm" in reasons[name] for name in inexact if name not in held)
    for group in network.coupling.groups:
        assert bool(gated[group.atoms].any()) == (group.name not in reasons)


def test_a_gate_inside_batch_norm_is_refused_before_the_work():
    """Queries and keys meet behind batch norm: every site would have to be gated, the norm too."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.last = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(4, 3)
            self.query_norm, self.key_norm = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query = self.query_norm(self.query(x).transpose(1, 2)).transpose(1, 2)
            key = self.key_norm(self.key(x).transpose(1, 2)).transpose(1, 2)
            return self.last(query @ key.transpose(1, 2))

    network = read_network(randomize_(Normed(), seed=0).eval(), (torch.randn(2, 4, 8),))
    assert any(group.contracted for group in network.coupling.groups)
    gated, reasons = gateable(network, {})
    assert not gated.any()
    assert any("inside a module" in reason for reason in reasons.values())
    every = np.ones_like(gated)
    module, _ = network.graph_network(every)
    with pytest.raises(GraphError, match="inside a module"):
        add_gates_(module, bank_of(network, every))
