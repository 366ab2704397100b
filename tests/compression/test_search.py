"""The search for the smallest model within a drop, on drops that are known as functions."""

from __future__ import annotations

import math
import random

import pytest

from prunecli.compression.search import CLOSE, best, next_strength
from prunecli.report import Attempt


def attempt(strength: float, drop: float, allowed: float) -> Attempt:
    return Attempt(
        strength=strength, budget="", file="", kept={}, bytes=0, epochs=1, seconds=0.0,
        ok=drop <= allowed, drop=drop, excess=drop - allowed,
    )  # fmt: skip


def search(drop, allowed, *, full, most=20):
    tried: list[Attempt] = []
    while len(tried) < most and (strength := next_strength(tried, full=full)) is not None:
        assert 0 < strength <= 1
        assert strength not in [one.strength for one in tried]
        tried.append(attempt(strength, drop(strength), allowed))
    return tried


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    "drop",
    [
        lambda s: 0.05 * s,
        lambda s: 0.3 * s**4,
        lambda s: 0.001 if s < 0.7 else 0.4,
        lambda s: math.exp(6 * (s - 1)) * 0.5,
    ],
    ids=["line", "power", "cliff", "exponential"],
)
@pytest.mark.parametrize("allowed", [0.005, 0.01, 0.03])
def test_the_largest_strength_within_the_drop_is_found(drop, allowed, full):
    tried = search(drop, allowed, full=full)
    exact = max((at / 1000 for at in range(1001) if drop(at / 1000) <= allowed), default=0.0)
    winner = best(tried)
    if winner.ok:
        assert winner.strength <= exact + 1e-3
        assert exact - winner.strength <= CLOSE + 1e-3
    else:
        assert exact <= CLOSE
    assert len(tried) <= 10


def test_a_budget_that_is_met_at_once_needs_one_try():
    assert len(search(lambda _: 0.0, 0.01, full=True)) == 1


def test_without_a_budget_the_search_goes_to_the_end_as_long_as_nothing_is_lost():
    tried = search(lambda _: 0.0, 0.01, full=False)
    assert tried[0].strength == pytest.approx(10 / 19)  # half the FLOPs
    assert tried[-1].strength > 1 - 2 * CLOSE


def test_where_nothing_is_within_the_drop_the_nearest_is_kept():
    tried = search(lambda s: 0.1 + s, 0.01, full=True)
    assert not any(one.ok for one in tried)
    assert best(tried).drop == min(one.drop for one in tried)


def test_noise_in_the_drops_never_makes_the_search_repeat_or_run_on():
    draw = random.Random(0)
    for _ in range(200):
        tried = search(lambda s: 0.02 * s + draw.gauss(0, 0.01), 0.01, full=draw.random() < 0.5)
        assert len(tried) <= 10
