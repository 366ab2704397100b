"""One share of every group: aligned, within the budget, and hardly less than that."""

from __future__ import annotations

import numpy as np
import pytest

from prunecli.budget import make_budget
from prunecli.methods.dynamic import uniform_widths
from prunecli.methods.dynamic.shares import shared_widths
from prunecli.options import PruneOptions
from tests.support.dynamic import digits_network
from tests.support.samples import sample

FULL = np.array([16, 16, 32, 64, 64])
ALIGN = np.array([8, 8, 16, 16, 16])


def shared(budget: float, **changes) -> np.ndarray:
    """Return widths of a chain of layers whose cost is the product of neighbours."""

    def load(widths):
        return float((widths[1:] * widths[:-1]).sum() + widths[0]) / budget

    given = {
        "align": ALIGN, "steps": (np.full(5, 4), np.ones(5, int)), "least": np.ones(5, int),
        "free": np.ones(5, bool), "enough": 0.99, **changes,
    }  # fmt: skip
    widths = shared_widths(load, FULL, **given)
    assert load(widths) <= 1
    return widths


def test_a_share_that_is_hardly_over_the_budget_keeps_its_alignment_all_but_once():
    exact = 8 + 8 * 8 + 8 * 16 + 16 * 32 + 32 * 32
    assert shared(exact).tolist() == [8, 8, 16, 32, 32]
    widths = shared(exact - 1)
    assert (widths != [8, 8, 16, 32, 32]).sum() == 1
    assert np.abs(widths - [8, 8, 16, 32, 32]).max() <= 4


@pytest.mark.parametrize("part", np.linspace(0.02, 0.95, 9))
def test_the_budget_is_used_and_the_shares_are_alike(part):
    dense = 16 + 16 * 16 + 16 * 32 + 32 * 64 + 64 * 64
    widths = shared(part * dense)
    used = ((widths[1:] * widths[:-1]).sum() + widths[0]) / (part * dense)
    assert 0.96 <= used <= 1
    shares = widths / FULL
    assert shares.max() - shares.min() <= 0.5  # half an alignment on either side


def test_what_is_held_stays_and_the_least_is_kept():
    free = np.array([True, True, False, True, True])
    widths = shared(700, free=free, least=np.array([3, 3, 3, 3, 3]))
    assert widths[2] == 32
    assert widths.min() >= 3


@pytest.mark.parametrize("flops", [0.5, 0.25])
@pytest.mark.parametrize("name", ["digits_resnet", "digits_vgg", "digits_mobilenet"])
def test_networks_keep_within_a_percent_of_the_budget(name, flops):
    network = digits_network(sample(name))
    found = uniform_widths(network, make_budget(flops=flops), PruneOptions())
    kept = network.cost.cost(found.widths)["flops"] / network.cost.dense["flops"]
    assert 0.99 * flops <= kept <= flops
    shares = found.widths / network.cost.dense_widths
    assert shares.max() - shares.min() < 0.4


def test_an_alignment_that_is_asked_for_is_kept():
    network = digits_network(sample("digits_vgg"))
    found = uniform_widths(network, make_budget(flops=0.4), PruneOptions(align=4))
    assert set((found.widths % 4).tolist()) == {0}
