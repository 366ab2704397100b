"""Norms that run over channels: what a cut leaves of them is proven against masked statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli.network.traced import read_network
from prunecli.proof.error import TOLERANCE, relative_error
from prunecli.proof.masked_norms import masked_group_norm, masked_layer_norm, masked_rms_norm
from tests.support.weights import randomize_


class Baked(nn.Module):
    """A norm between two linear layers, with a view that bakes the width in."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.fc = nn.Linear(4, 16), norm, nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(functional.gelu(self.norm(self.first(x)).view(-1, 16)))


NORMS = {
    "layer": lambda: nn.LayerNorm(16),
    "rms": lambda: nn.RMSNorm(16),
    "group of one": lambda: nn.GroupNorm(1, 16),
    "group of two": lambda: nn.GroupNorm(2, 16),
    "group without affine": lambda: nn.GroupNorm(2, 16, affine=False),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("mode", ["module", "graph"])
def test_a_cut_under_any_norm_over_channels_is_proven(name: str, mode: str) -> None:
    norm = NORMS[name]()
    model = Baked(norm) if mode == "graph" else nn.Sequential(
        nn.Linear(4, 16), norm, nn.GELU(), nn.Linear(16, 3)
    )  # fmt: skip
    randomize_(model, seed=1).eval()
    result = prunecli.prune(model, torch.zeros(1, 4), flops=0.6, align=1)
    assert result.report.mode == mode
    assert result.report.verified.method == "masked-norm"
    assert any("norm over channels" in warning for warning in result.report.warnings)


def test_a_group_norm_that_loses_whole_groups_is_as_exact_as_a_mask() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.GroupNorm(8, 16), nn.GELU(), nn.Linear(16, 3))
    result = prunecli.prune(
        randomize_(model, seed=0).eval(), torch.zeros(1, 4), flops=0.6, align=1
    )  # fmt: skip
    assert result.report.verified.method == "consumer-zero"
    assert result.model[1].num_groups * 2 == result.model[1].num_channels < 16


def test_masked_norms_equal_torchs_norms_of_the_kept_channels_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    kept = np.asarray([0, 2, 3, 5])
    weight, bias = torch.rand(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    slim, own = x[:, kept], (weight[kept], bias[kept])
    assert torch.allclose(
        masked_group_norm(x, [kept], weight, bias, groups=2, eps=1e-5)[:, kept],
        functional.group_norm(slim, 2, *own, eps=1e-5),
    )
    x, slim = x.mT, slim.mT
    assert torch.allclose(
        masked_layer_norm(x, [kept], weight, bias, 1e-5)[..., kept],
        functional.layer_norm(slim, (4,), *own, eps=1e-5),
    )
    assert torch.allclose(
        masked_rms_norm(x, [kept], weight, None)[..., kept],
        functional.rms_norm(slim, (4,), own[0], eps=None),
    )


def test_graph_mode_recomputes_the_groups_of_a_transposed_convolution() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 12, 2, 2, groups=4),
        nn.ReLU(), nn.Conv2d(12, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    randomize_(model, seed=0).eval()
    image = torch.randn(2, 3, 4, 4)
    network = read_network(model, [image])
    result = prunecli.prune(model, image, flops=0.5, align=1, only=["0"])
    keep = np.concatenate(
        [np.isin(np.arange(group.width), result.plan.keep[group.name])
         for group in network.coupling.groups]
    )  # fmt: skip
    rebuilt, _ = network.graph_network(keep)
    assert result.model[2].groups < 4
    assert torch.allclose(rebuilt(image), result.model(image), atol=1e-6)


class Attention(nn.Module):
    """Attention of one head; its queries and keys meet each other, never a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 12) for _ in range(3))
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        weights = (self.query(x) @ self.key(x).transpose(1, 2) * 0.3).softmax(-1)
        return self.fc((weights @ self.value(x)).mean(1))


def test_queries_and_keys_are_cut_together_and_proven() -> None:
    model = randomize_(Attention(), seed=0).eval()
    result = prunecli.prune(model, torch.zeros(1, 5, 8), flops=0.6, align=1, only=["query"])
    assert result.plan.keep["value"] == tuple(range(12))
    assert result.model.query.out_features == result.model.key.out_features < 12
    assert result.report.verified.method == "consumer-zero"


def test_rounding_in_a_constant_second_output_is_no_error_but_a_difference_is() -> None:
    live = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    constant = torch.ones(2, 3, dtype=torch.float64)
    assert relative_error([live, constant], [live, constant * (1 + 4e-16)]) < TOLERANCE
    assert relative_error([live, constant], [live, constant * (1 + 1e-9)]) > TOLERANCE
