"""A module that is made from a file shares the weights that its class shares."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli import verbs
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.artefacts.instantiate import instantiate
from prunecli.budget import make_budget
from prunecli.checkpoint import Checkpoint, load, save
from prunecli.options import LoadOptions, PruneOptions

SPEC = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
FACTORY = "networks_of_a_user:Tied"


class Tied(nn.Module):
    """Two layers with one weight, and a third one beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first, self.second = (nn.Conv2d(16, 16, 3, padding=1, bias=False) for _ in range(2))
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.stem(x).relu()).relu()).mean((2, 3)))


@pytest.fixture
def model(monkeypatch) -> Tied:
    """Return a network whose class can be imported by the name in `FACTORY`."""
    code = ModuleType("networks_of_a_user")
    code.Tied = Tied
    monkeypatch.setitem(sys.modules, "networks_of_a_user", code)
    torch.manual_seed(0)
    return Tied().eval()


def checkpoint_of(model: nn.Module) -> Checkpoint:
    return Checkpoint(ArchitectureRef(FACTORY), model.state_dict(), SPEC)


def check_tied(found: nn.Module) -> None:
    """Check that the two layers still hold one weight after a step of training."""
    assert found.first.weight is found.second.weight
    assert {name for name, _ in found.named_parameters()} == {
        "stem.weight", "stem.bias", "first.weight", "head.weight", "head.bias"
    }  # fmt: skip
    before = found.first.weight.detach().clone()
    optimizer = torch.optim.SGD(found.parameters(), lr=0.1)
    found(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(found.first.weight, before)
    assert torch.equal(found.first.weight, found.second.weight)


def test_tied_weights_of_a_dense_network_are_one_parameter_again(model: Tied) -> None:
    found = instantiate(checkpoint_of(model))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(found(x), model(x))
    check_tied(found)


def test_tied_weights_of_a_cut_network_are_one_parameter_again(
    model: Tied, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dense = tmp_path / "dense.pt"
    save(checkpoint_of(model), dense)
    options = PruneOptions(align=1)
    report = verbs.prune(
        dense,
        budget=make_budget(params=0.6),
        options=options,
        load=LoadOptions(architecture=FACTORY),
    )
    assert report.mode == "module"
    found = instantiate(load(report.output, architecture=FACTORY).checkpoint)
    assert found.first.weight.shape[0] < 16
    kept = sum(parameter.numel() for parameter in found.parameters())
    assert kept == report.cost.after.params
    in_memory = prunecli.prune(model, torch.zeros(1, 3, 8, 8), params=0.6, align=1).model
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(found(x), in_memory(x))
    check_tied(found)
