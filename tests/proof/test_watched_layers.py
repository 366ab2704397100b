"""What the layers of a network gave, where a proof looks at them: positions stand for inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunecli.graph.tracing.folding import stored_tensors
from prunecli.proof.error import TOLERANCE, relative_error
from prunecli.proof.witness import run_watched

FLAT = 4
"""How many positions at the front of the inputs below are all the same."""


class Reads(nn.Module):
    """A layer that every position passes alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def flat_then_drawn(*shape: int) -> Tensor:
    """Return positions [n, channels] of which the first are the same and the others are drawn."""
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[:FLAT] = x[0]
    return x


def one_image() -> tuple[nn.Module, Tensor]:
    x = flat_then_drawn(16, 3).T.reshape(1, 3, 4, 4)
    return Reads(nn.Conv2d(3, 5, 1).double()), x


def one_sequence() -> tuple[nn.Module, Tensor]:
    return Reads(nn.Linear(3, 5).double()), flat_then_drawn(16, 3)[None]


def watched(model: nn.Module, state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    _, witness = run_watched(model, state, (x,), ("layer",))
    return witness.outputs


@pytest.mark.parametrize("make", [one_image, one_sequence])
def test_of_one_image_two_positions_far_apart_stand_for_two_inputs(make) -> None:
    torch.manual_seed(0)
    model, x = make()
    state = stored_tensors(model)
    (found,) = watched(model, state, x)
    with torch.no_grad():
        positions = model(x)[0]
    rows = positions.flatten(1).T if positions.dim() == 3 else positions
    assert found.shape == rows.shape
    # Nothing is lost, nothing is counted twice: the rows are those of the layer in another order.
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, rows.tolist()))
    assert torch.equal(found[0], rows[0])
    assert torch.equal(found[1], rows[len(rows) // 2])


@pytest.mark.parametrize("make", [one_image, one_sequence])
def test_an_image_that_is_flat_in_its_corner_still_proves_and_still_refutes(make) -> None:
    """The scale of an error is the difference of the first two rows, which must not be zero."""
    torch.manual_seed(0)
    model, x = make()
    state = stored_tensors(model)
    wrong = {name: value * (1 + 1e-6) for name, value in state.items()}
    expected = watched(model, state, x)
    assert relative_error(watched(model, state, x), expected) < TOLERANCE
    error = relative_error(watched(model, wrong, x), expected)
    assert TOLERANCE < error < 1e-4
