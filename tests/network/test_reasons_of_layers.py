"""Why a layer keeps all of its channels is said of such layers, and of no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import prunecli

if TYPE_CHECKING:
    from prunecli.report import LayerCut


class Halves(nn.Module):
    """One layer makes the channels of two groups, of which each is read by a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Conv2d(3, 16, 3)
        self.left, self.right = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.both(x).relu().chunk(2, 1)
        joined = torch.cat([self.left(left), self.right(right)], 1)
        return self.head(joined.relu().mean((2, 3)))


def cut(*, exclude: tuple[str, ...]) -> tuple[dict[str, LayerCut], dict[str, int]]:
    """Return the layers by name, and how many channels every group keeps."""
    torch.manual_seed(0)
    model, example = Halves().eval(), torch.zeros(1, 3, 8, 8)
    result = prunecli.prune(model, example, params=0.8, align=1, exclude=exclude)
    layers = {layer.name: layer for layer in result.report.layers}
    return layers, {name: len(kept) for name, kept in result.plan.keep.items()}


def test_a_layer_that_is_cut_has_no_reason_though_half_of_it_is_held() -> None:
    layers, kept = cut(exclude=("both#2",))
    assert kept["both#2"] == 8
    assert kept["both"] < 8
    assert layers["both"].kept == kept["both"] + 8
    assert layers["both"].reason == ""


def test_a_layer_that_is_held_says_why_and_those_beside_it_that_are_cut_do_not() -> None:
    layers, kept = cut(exclude=("both",))
    assert (kept["both"], kept["both#2"]) == (8, 8)
    assert (layers["both"].kept, layers["both"].reason) == (16, "--exclude")
    assert (layers["head"].kept, layers["head"].reason) == (5, "output of the model")
    for name in ("left", "right"):
        assert (layers[name].kept < 12) == (layers[name].reason == "")
    assert layers["left"].kept + layers["right"].kept < 24
