"""Every tensor of a pruned model is the dense one, selected: bit for bit, whatever samples say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import prunecli
from prunecli.errors import ProofError
from prunecli.network.traced import read_network
from prunecli.proof.bits import same_bits
from prunecli.proof.structure import StructureProof

ULP = 2.0**-23


@pytest.mark.parametrize("name", ["0.weight", "1.bias", "1.running_var", "3.bias"])
def test_a_cut_is_refused_where_one_value_is_another(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    ).eval()
    nn.init.normal_(model[1].bias)
    example = torch.randn(2, 3, 8, 8)
    result = prunecli.prune(model, example, sparsity=0.5, align=1)
    network = read_network(model, [example])
    keep = np.concatenate(
        [
            np.isin(np.arange(group.width), result.plan.keep[group.name])
            for group in network.coupling.groups
        ]
    )
    proof = StructureProof(network)
    assert proof.prove(result.model, result.plan, keep).equal

    result.model.state_dict()[name].view(-1)[0] *= 1 + ULP
    with pytest.raises(ProofError, match="not that of the plan") as caught:
        proof.prove(result.model, result.plan, keep)
    assert (caught.value.code, caught.value.where) == ("CUT_NOT_EQUAL", name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_bits_are_compared_in_every_type(dtype: torch.dtype) -> None:
    first = torch.tensor([0, 1, 0, 1], dtype=dtype)
    assert same_bits(first, first.clone())
    assert same_bits(first.reshape(2, 2).T.contiguous(), first.reshape(2, 2).T)
    assert not same_bits(first, first.flip(0))
    assert not same_bits(first, first.to(torch.float16))


def test_what_is_no_number_equals_itself_alone() -> None:
    holes = torch.tensor([float("nan"), 1.0])
    assert same_bits(holes, holes.clone())
    assert not same_bits(holes, torch.tensor([float("nan"), 2.0]))
    assert not same_bits(torch.tensor(0.0), torch.tensor(-0.0))
