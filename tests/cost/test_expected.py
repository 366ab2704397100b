"""Expected costs equal the closed forms, in value and in gradient, at whole widths and between."""

import dataclasses

import numpy as np
import pytest
import torch

from prunecli.cost.expected import ExpectedCost
from prunecli.network.traced import read_network
from tests.support.samples import sample


class Table:
    """Milliseconds that are known by hand: 2 w_0 + w_1 w_2 + activations / 1000."""

    def predict(self, widths, *, activations):
        return float(2 * widths[0] + widths[1] * widths[2] + activations / 1000)

    def gradient(self, widths, *, activations):
        found = np.asarray(activations) / 1000
        found[0] += 2
        found[1] += widths[2]
        found[2] += widths[1]
        return found


@pytest.fixture(scope="module")
def network():
    return read_network(sample("digits_mobilenet"), (torch.randn(2, 1, 8, 8),))


@pytest.mark.parametrize("kind", ["flops", "params", "activations", "bytes", "channels"])
def test_a_cost_at_whole_widths_and_its_gradient(network, kind):
    cost, random = network.cost, np.random.default_rng(0)
    expected = ExpectedCost(cost)
    for _ in range(5):
        widths = random.integers(1, cost.dense_widths + 1)
        given = torch.tensor(widths, dtype=torch.float64, requires_grad=True)
        found = expected(kind, given)
        found.backward()
        assert float(found.detach()) == pytest.approx(cost.cost(widths)[kind], rel=1e-12)
        assert given.grad is not None
        assert given.grad.numpy() == pytest.approx(cost.gradient(kind, widths), rel=1e-12)
        kept = expected.kept(kind, given.detach())
        assert float(kept) == pytest.approx(cost.cost(widths)[kind] / cost.dense[kind])


def test_between_whole_widths_the_gradient_is_that_of_small_steps(network):
    expected = ExpectedCost(network.cost)
    given = torch.tensor(network.cost.dense_widths * 0.37, requires_grad=True)
    expected("flops", given).backward()
    assert given.grad is not None
    for at in range(len(given)):
        near = []
        for sign in (1, -1):
            moved = given.detach().clone()
            moved[at] += sign * 1e-3
            near.append(float(expected("flops", moved)))
        assert float(given.grad[at]) == pytest.approx((near[0] - near[1]) / 2e-3, rel=1e-6)


def test_milliseconds_have_the_gradient_of_their_table(network):
    cost = dataclasses.replace(network.cost, latency=Table())
    widths = cost.dense_widths // 2
    given = torch.tensor(widths, dtype=torch.float32, requires_grad=True)
    found = ExpectedCost(cost)("latency", given)
    found.backward()
    assert float(found.detach()) == pytest.approx(cost.cost(widths)["latency"])
    assert given.grad is not None
    assert given.grad.numpy() == pytest.approx(cost.gradient("latency", widths), rel=1e-6)
