"""The half of a proof on perturbed weights: it alone sees vectors that are all neutral."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

import prunecli
from prunecli.cutting.surgery import cut_module
from prunecli.errors import ProofError
from prunecli.network.traced import read_network
from prunecli.proof.inputs import perturb
from prunecli.proof.prove import prove

if TYPE_CHECKING:
    from prunecli.pruning.road import PruneResult

SIDE = 10
WIDTH = 12
BATCH_NORM = ("1.weight", "1.bias", "1.running_mean", "1.running_var")


def fresh_batch_norm() -> nn.Sequential:
    """Return a network whose batch norm was never trained: zeros and ones, for every channel."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, WIDTH, 3, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(),
        nn.Conv2d(WIDTH, 6, 3),
        nn.Flatten(),
        nn.Linear(6 * (SIDE - 4) ** 2, 5),
    ).eval()


def fresh_bias() -> nn.Sequential:
    """Return a network whose first layer starts with a bias of zeros."""
    torch.manual_seed(4)
    model = nn.Sequential(
        nn.Conv2d(2, WIDTH, 3), nn.ReLU(), nn.Flatten(), nn.Linear(WIDTH * (SIDE - 2) ** 2, 5)
    )
    nn.init.zeros_(model[0].bias)
    return model.eval()


def masked(model: nn.Sequential, result: PruneResult) -> nn.Sequential:
    """Return the dense network with every weight zeroed that reads a removed channel."""
    copied = copy.deepcopy(model)
    for name, dims in result.plan.slices.items():
        if 1 in dims:
            weight = copied.get_parameter(name)
            gone = np.setdiff1d(np.arange(weight.shape[1]), dims[1])
            weight.data[:, torch.from_numpy(gone)] = 0
    return copied


@pytest.mark.parametrize(
    ("make", "displaced"),
    [(fresh_batch_norm, BATCH_NORM), (fresh_bias, ("0.bias",))],
    ids=["batch norm", "bias"],
)
def test_vectors_cut_to_the_wrong_channels_are_caught_though_they_are_all_neutral(
    make, displaced: tuple[str, ...]
) -> None:
    model, example = make(), torch.zeros(1, 2, SIDE, SIDE)
    result = prunecli.prune(model, example, params=0.6, align=1)
    network = read_network(model, [example])
    keep = np.concatenate(
        [
            np.isin(np.arange(group.width), result.plan.keep[group.name])
            for group in network.coupling.groups
        ]
    )
    slices = {name: dict(dims) for name, dims in result.plan.slices.items()}
    for name in displaced:
        slices[name][0] = tuple(sorted((at + 1) % WIDTH for at in slices[name][0]))
    assert slices != result.plan.slices
    wrong = cut_module(model, slices)

    # On the weights as they are, the wrong cut computes what the right one does.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, SIDE, SIDE, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(wrong(x), masked(model, result)(x))

    with pytest.raises(ProofError, match="differs from the masked one") as caught:
        prove(model, wrong, slices, keep, trace=network.trace, coupling=network.coupling)
    assert caught.value.code == "CUT_NOT_EQUAL"


def test_perturbed_vectors_have_another_value_for_every_channel_and_matrices_stay() -> None:
    state = {
        "norm.weight": torch.ones(8),
        "norm.bias": torch.zeros(8),
        "norm.running_mean": torch.zeros(8),
        "norm.running_var": torch.ones(8),
        "norm.num_batches_tracked": torch.tensor(3),
        "scale": torch.ones(8, 1, 1),
        "fc.weight": torch.ones(8, 4),
    }
    found = perturb(state, torch.Generator().manual_seed(0))
    assert found.keys() == state.keys()
    for name in ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "scale"):
        assert found[name].shape == state[name].shape
        assert len(set(found[name].flatten().tolist())) == 8, name
        assert not bool((found[name] == state[name]).any()), name
    assert bool((found["norm.running_var"] > 0).all())
    for name in ("norm.num_batches_tracked", "fc.weight"):
        assert torch.equal(found[name], state[name])
