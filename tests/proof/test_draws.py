"""Random draws that give their means do not depend on how many channels are drawn for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import stochastic_depth

from prunecli.proof.draws import MeanDraws

X = torch.arange(1.0, 25.0).view(2, 3, 2, 2)


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: functional.dropout(x, 0.5),
        lambda x: functional.dropout2d(x, 0.5),
        lambda x: functional.dropout(x.clone(), 0.5, inplace=True),
        lambda x: stochastic_depth(x, 0.3, "row"),
        lambda x: x + torch.randn_like(x),
        lambda x: x + torch.empty_like(x).normal_(0.0, 3.0),
        lambda x: x + torch.empty_like(x).uniform_(-1, 1),
        lambda x: x + torch.rand(x.shape) - 0.5,
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.25)) * 4,
        lambda x: torch.native_dropout(x, 0.5, True)[0],
    ],
)
def test_a_draw_with_a_neutral_mean_changes_nothing(draw) -> None:
    with MeanDraws():
        found = draw(X)
    assert torch.allclose(found, X)
    assert not torch.allclose(draw(X), X)


def test_dropout_inside_attention_and_recurrent_layers_is_off() -> None:
    query = torch.randn(2, 2, 4, 8)
    lstm = nn.LSTM(8, 4, 2, dropout=0.9).train()
    with MeanDraws():
        attended = functional.scaled_dot_product_attention(query, query, query, dropout_p=0.9)
        recurrent = lstm(query[0])[0]
    plain = functional.scaled_dot_product_attention(query, query, query)
    assert torch.allclose(attended, plain, atol=1e-6)
    assert torch.allclose(recurrent, lstm.eval()(query[0])[0], atol=1e-6)


def test_a_random_slope_is_its_mean() -> None:
    with MeanDraws():
        found = functional.rrelu(-X, 0.2, 0.4, training=True)
    assert torch.allclose(found, -0.3 * X)


def test_permutations_go_by_the_seed() -> None:
    torch.manual_seed(3)
    expected = torch.randperm(9)
    torch.manual_seed(3)
    with MeanDraws():
        assert torch.equal(torch.randperm(9), expected)
