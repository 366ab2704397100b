"""Widths that are fast: the budget is kept, and no width stays that a wider one is as fast as."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prunecli.allocation import ALLOCATIONS, fast_widths
from prunecli.allocation.stairs import NOTICED
from tests.support.problems import Chain, problem

WIDTHS = (64, 48, 96, 64)
BLOCK = 16


def time(widths) -> float:
    """Layers in a row whose kernels work in blocks of 16 channels."""
    blocks = [1, *(-(-width // BLOCK) for width in widths), 1]
    return float(sum(a * b for a, b in itertools.pairwise(blocks)))


def linear(widths) -> float:
    padded = [3, *widths, 10]
    return float(sum(a * b for a, b in itertools.pairwise(padded)))


def case(ceiling: float, *, align: int = 1, seed: int = 0):
    return problem(WIDTHS, ceiling=ceiling, cost=Chain, align=align, seed=seed)


@pytest.mark.parametrize("rule", ["uniform", "global", "greedy", "knapsack"])
@pytest.mark.parametrize("ceiling", [0.75, 0.5, 0.3, 0.12])
def test_widths_keep_the_budget_and_lie_on_steps(rule: str, ceiling: float):
    steps = case(ceiling, align=4)
    found = fast_widths(rule, case(ceiling), steps, time)
    assert steps.load(found) <= 1
    for at, width in enumerate(found):
        assert width in steps.widths[at]
        wider = found.copy()
        wider[at] = min(width + 4, WIDTHS[at])
        if wider[at] > width and steps.load(wider) <= 1:
            assert time(wider) > time(found)  # it would be free


def test_a_cut_is_as_fast_as_its_budget_says_where_the_rule_alone_is_not():
    steps = case(0.5, align=4)
    found = fast_widths("uniform", case(0.5), steps, time)
    alone = ALLOCATIONS.get("uniform")(case(0.5))
    dense = time(steps.full) / linear(steps.full)
    assert time(found) / linear(found) <= 1.05 * dense
    assert time(alone) / linear(alone) > 1.1 * dense


def test_widths_stay_near_those_of_the_rule():
    found = fast_widths("uniform", case(0.5), case(0.5, align=4), time)
    wanted = ALLOCATIONS.get("uniform")(case(0.5))
    assert (np.abs(found - wanted) <= BLOCK).all()


def test_where_every_channel_takes_its_time_the_budget_is_used_up():
    steps = case(0.5, align=4)
    found = fast_widths("uniform", case(0.5), steps, linear)
    assert 0.97 <= steps.load(found) <= 1


def test_no_choice_on_steps_is_much_faster_for_what_it_keeps():
    """Of all widths on steps within the budget, none beats the share of time by a lot."""
    steps = case(0.5, align=16)
    found = fast_widths("uniform", case(0.5), steps, time)

    def speed(widths) -> float:
        return steps.load(widths) / time(widths)

    every = (np.asarray(each) for each in itertools.product(*steps.widths))
    assert speed(found) >= 0.9 * max(speed(each) for each in every if steps.load(each) <= 1)


def test_what_hardly_takes_longer_is_no_step():
    """Noise of a measurement makes no step: 0.97 of the time is the same width."""

    def noisy(widths) -> float:
        return time(widths) * (1 - NOTICED / 4 * (widths[0] % 16 == 12))

    plain, other = (
        fast_widths("uniform", case(0.4), case(0.4, align=4), each) for each in (time, noisy)
    )
    assert plain.tolist() == other.tolist()


def test_a_budget_that_needs_widths_which_save_no_time_is_kept_all_the_same():
    steps = case(0.02, align=4)
    found = fast_widths("uniform", case(0.02), steps, lambda widths: 100.0 + time(widths) * 1e-9)
    assert steps.load(found) <= 1
