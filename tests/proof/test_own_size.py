"""Numbers alone, where no structure can be compared: images are then as large as the example's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli.errors import ProofError
from prunecli.network.traced import read_network
from prunecli.proof.prove import prove

EXAMPLE = torch.zeros(1, 3, 160, 160)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(8, 8, 3, stride=4)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu().mean((2, 3)))


def test_a_fault_that_large_images_alone_show_is_caught_at_the_size_of_the_example() -> None:
    torch.manual_seed(0)
    model = Small().eval()
    result = prunecli.prune(model, EXAMPLE, params=0.6, align=1)
    network = read_network(model, [EXAMPLE])
    keep = np.concatenate(
        [
            np.isin(np.arange(group.width), result.plan.keep[group.name])
            for group in network.coupling.groups
        ]
    )
    own = result.model.forward
    result.model.forward = lambda x: own(x) * (2 if x.shape[-1] == EXAMPLE.shape[-1] else 1)
    cut = (model, result.model, result.plan.slices, keep)
    claim = {"trace": network.trace, "coupling": network.coupling}
    assert prove(*cut, **claim).max_rel_error < 1e-9
    with pytest.raises(ProofError, match="differs from the masked one"):
        prove(*cut, **claim, own_size=True)
