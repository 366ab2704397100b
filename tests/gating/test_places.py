"""Where gates are: on readers as the proof has them, behind norms and on filters as papers do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from prunecli.gating.bank import GateBank, gated_network
from prunecli.gating.choose import gateable
from prunecli.gating.places import PLACEMENTS, places_of
from prunecli.network.traced import Network, read_network
from tests.support.weights import randomize_


class Two(nn.Module):
    """A layer with batch norm, and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)
        self.second, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.norm(self.first(x)).relu()).relu()
        return self.last(x.mean((2, 3)))


def gated(where: str, mask: list[float]) -> tuple[Network, GateBank, nn.Module]:
    torch.manual_seed(0)
    model = randomize_(Two(), seed=1).eval()
    model.norm.bias.data.abs_().add_(2)  # what a norm makes of nothing passes the activation
    network = read_network(model, (torch.randn(2, 2, 8, 8),))
    every, reasons = gateable(network, {})
    assert not reasons
    bank = GateBank(
        places_of(network, every, where),
        every,
        trained=lambda bank: bank.logits,
        tested=lambda bank: bank.mask,
    )
    bank.active = True
    bank.mask.copy_(torch.tensor(mask))
    return network, bank, gated_network(network, bank)


def outputs(module: nn.Module) -> torch.Tensor:
    images = torch.randn(
        3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        return module.double().eval()(images)


GATES = [0.5, 0.0, 1.0, 0.25, 1.0, 0.0, 0.7]
FIRST, SECOND = (
    torch.tensor(GATES[:3], dtype=torch.float64),
    torch.tensor(GATES[3:], dtype=torch.float64),
)


def by_hand(model: Two, where: str, x: torch.Tensor) -> torch.Tensor:
    first, second = FIRST.view(1, -1, 1, 1), SECOND.view(1, -1, 1, 1)
    x = model.first(x)
    if where == "filters":
        x = x * first
    x = model.norm(x)
    if where == "norms":
        x = x * first
    x = x.relu()
    if where == "readers":
        x = x * first
    x = model.second(x)
    x = (x * second).relu() if where != "readers" else x.relu() * second
    return model.last(x.mean((2, 3)))


@pytest.mark.parametrize("where", PLACEMENTS)
def test_a_gate_multiplies_what_it_is_placed_at(where):
    network, _, module = gated(where, GATES)
    images = torch.randn(
        3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        expected = by_hand(network.model.double(), where, images)
    torch.testing.assert_close(outputs(module), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("where", PLACEMENTS)
def test_a_gate_stays_in_the_weights_that_scale_what_it_gates(where):
    network, bank, module = gated(where, GATES)
    expected = outputs(module)
    plain, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    plain.double()
    bank.fold_(bank.mask, dict(plain.named_parameters()))
    torch.testing.assert_close(outputs(plain), expected)


@pytest.mark.parametrize(
    ("where", "blind"), [("readers", False), ("norms", False), ("filters", True)]
)
def test_a_gate_before_batch_norm_is_blind_in_training(where, blind):
    """Statistics of the batch take a factor of the filter back: the loss hardly depends on it."""
    _, bank, module = gated(where, GATES)
    nn.init.constant_(bank.logits, 0.8)
    module.double().train()
    images = torch.randn(8, 2, 8, 8, dtype=torch.float64)
    loss = module(images).square().sum()
    (slope,) = torch.autograd.grad(loss, bank.logits)
    behind = float(slope[3:].abs().max())
    assert (float(slope[:3].abs().max()) < 1e-3 * behind) == blind


def test_a_closed_filter_leaves_the_shift_of_its_norm():
    network, _, module = gated("filters", [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    keep = np.ones(7, np.bool_)
    keep[1] = False
    cut = outputs(network.graph_network(keep)[0])
    assert not torch.allclose(outputs(module), cut, atol=1e-3)
    _, _, module = gated("norms", [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(outputs(module), cut, rtol=1e-6, atol=1e-7)
