"""How much of a difference a proof puts down to rounding: never as much as a wrong weight gives."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli.errors import ProofError
from prunecli.network.traced import read_network
from prunecli.proof.error import TOLERANCE
from prunecli.proof.prove import prove

if TYPE_CHECKING:
    from prunecli.network.traced import Network

EXAMPLE = torch.zeros(1, 6)


class SingleInside(nn.Module):
    """A softmax that is computed in float32 on purpose, whatever the precision of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).tanh()).float().softmax(-1).type_as(x)


class Wild(nn.Module):
    """A logistic map beside the head: it doubles a rounding error with every step."""

    steps = 31

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wild, self.head = nn.Linear(6, 12), nn.Linear(12, 4), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(x).tanh()
        wild = self.wild(hidden).sigmoid()
        for _ in range(self.steps):
            wild = 4 * wild * (1 - wild)
        return wild, self.head(hidden)


@functools.cache
def cut(make: type[nn.Module]) -> tuple[nn.Module, prunecli.PruneResult, Network]:
    torch.manual_seed(0)
    model = make().eval()
    result = prunecli.prune(model, EXAMPLE, params=0.6, align=1)
    return model, result, read_network(model, [EXAMPLE])


def proven(make: type[nn.Module], *, change: float = 0.0, rounding: float = 0.0) -> float:
    """Prove a cut of which one column, or all input, is off by a share; return the error."""
    model, result, network = cut(make)
    keep = np.concatenate(
        [
            np.isin(np.arange(group.width), result.plan.keep[group.name])
            for group in network.coupling.groups
        ]
    )
    slim = copy.deepcopy(result.model)
    with torch.no_grad():
        slim.head.weight[:, 0] *= 1 + change
    own = slim.forward
    slim.forward = lambda x: own(x * (1 + rounding))
    claim = {"trace": network.trace, "coupling": network.coupling}
    return prove(model, slim, result.plan.slices, keep, **claim).max_rel_error


@pytest.mark.parametrize("make", [SingleInside, Wild])
@pytest.mark.parametrize("change", [1e-3, 1e-2])
def test_a_wrong_weight_is_caught_in_a_network_that_rounds_or_amplifies(
    make: type[nn.Module], change: float
) -> None:
    with pytest.raises(ProofError, match="differs from the masked one") as caught:
        proven(make, change=change)
    assert caught.value.code == "CUT_NOT_EQUAL"


def test_what_such_a_network_does_to_rounding_is_no_reason_to_refuse_its_cut() -> None:
    assert proven(SingleInside) < TOLERANCE
    assert TOLERANCE < proven(SingleInside, change=1e-5) < 1e-5
    assert proven(Wild) < TOLERANCE
    assert TOLERANCE < proven(Wild, rounding=2**-52) < 1e-5


def test_an_output_is_not_excused_by_what_another_amplifies() -> None:
    with pytest.raises(ProofError, match="differs from the masked one"):
        proven(Wild, change=1e-5)


def test_the_same_small_difference_is_refused_where_nothing_amplifies_it() -> None:
    class Tame(Wild):
        steps = 0

    with pytest.raises(ProofError, match="differs from the masked one"):
        proven(Tame, change=1e-5)
