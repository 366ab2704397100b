"""A file that was cut twice is the dense network cut twice, with all that either cut changed."""

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

WIDTH, HEADS = 16, 4
SPEC = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
FACTORY = "networks_of_a_user:TwoBlocks"


class Attention(nn.Module):
    """Attention that keeps its number of heads in a field."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.heads = HEADS

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(0.3).softmax(-1)
        return self.proj(torch.einsum("bhqk,bkhd->bqhd", scores, v).flatten(2))


class TwoBlocks(nn.Module):
    """Two blocks of attention, of which one cut may change the first and another the second."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 2, 2)
        self.one, self.two = Attention(), Attention()
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.one(tokens)
        return self.head((tokens + self.two(tokens)).mean(1))


@pytest.fixture
def dense(monkeypatch) -> TwoBlocks:
    """Return a network whose class can be imported by the name in `FACTORY`."""
    code = ModuleType("networks_of_a_user")
    code.TwoBlocks = TwoBlocks
    monkeypatch.setitem(sys.modules, "networks_of_a_user", code)
    torch.manual_seed(0)
    return TwoBlocks().eval()


@pytest.mark.parametrize(
    ("first", "second"), [("one*", "two*"), ("two*", "one*"), ("one*", "one*")]
)
def test_the_heads_that_the_first_cut_left_are_those_of_the_twice_cut_file(
    dense: TwoBlocks, first: str, second: str, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "dense.pt"
    save(Checkpoint(ArchitectureRef(FACTORY), dense.state_dict(), SPEC), path)
    model, x = dense, torch.randn(2, 3, 8, 8)
    for at, only in enumerate((first, second)):
        report = verbs.prune(
            path,
            output=tmp_path / f"cut{at}.pt",
            budget=make_budget(params=0.8),
            options=PruneOptions(only=(only,), align=1),
            load=LoadOptions(architecture=FACTORY),
        )
        assert report.mode == "module"
        path = report.output
        example = torch.zeros(1, 3, 8, 8)
        model = prunecli.prune(model, example, params=0.8, only=[only], align=1).model
    found = instantiate(load(path, architecture=FACTORY).checkpoint)
    assert (found.one.heads, found.two.heads) == (model.one.heads, model.two.heads)
    changed = {getattr(found, name.removesuffix("*")).heads for name in (first, second)}
    assert max(changed) < HEADS
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x))
