"""Why a layer keeps all of its channels is said of such layers, and of no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import prunecli

if TYPE_CHECKING:
    from prunecli.report import LayerCut


class Halves(nn.Module):
    """One layer makes the channels of two groups, of which each is read by a layer of its own.

    With `equal` the forward says one number for both, so that they lose equally many.
    """

    def __init__(self, *, equal: bool) -> None:
        super().__init__()
        self.equal = equal
        self.both = nn.Conv2d(3, 16, 3)
        self.left, self.right = nn.Conv2d(8, 12, 1), nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.both(x).relu()
        left, right = hidden.chunk(2, 1) if self.equal else (hidden[:, :8], hidden[:, 8:])
        joined = torch.cat([self.left(left), self.right(right)], 1)
        return self.head(joined.relu().mean((2, 3)))


def cut(
    *, exclude: tuple[str, ...], equal: bool = False
) -> tuple[dict[str, LayerCut], dict[str, int]]:
    """Return the layers by name, and how many channels every group keeps."""
    torch.manual_seed(0)
    model, example = Halves(equal=equal).eval(), torch.zeros(1, 3, 8, 8)
    result = prunecli.prune(model, example, params=0.8, align=1, exclude=exclude)
    layers = {layer.name: layer for layer in result.report.layers}
    return layers, {name: len(kept) for name, kept in result.plan.keep.items()}


def test_a_layer_that_is_cut_has_no_reason_though_half_of_it_is_held() -> None:
    layers, kept = cut(exclude=("both#2",))
    assert kept["both#2"] == 8
    assert kept["both"] < 8
    assert layers["both"].kept == kept["both"] + 8
    assert layers["both"].reason == ""


def test_halves_of_one_width_are_held_together_and_say_why() -> None:
    layers, kept = cut(exclude=("both#2",), equal=True)
    assert (kept["both"], kept["both#2"]) == (8, 8)
    assert (layers["both"].kept, layers["both"].reason) == (16, "--exclude")
    assert kept["left"] + kept["right"] < 24


def test_a_layer_that_is_held_says_why_and_those_beside_it_that_are_cut_do_not() -> None:
    layers, kept = cut(exclude=("both",))
    assert (kept["both"], kept["both#2"]) == (8, 8)
    assert (layers["both"].kept, layers["both"].reason) == (16, "--exclude")
    assert (layers["head"].kept, layers["head"].reason) == (5, "output of the model")
    for name in ("left", "right"):
        assert (layers[name].kept < 12) == (layers[name].reason == "")
    assert layers["left"].kept + layers["right"].kept < 24
