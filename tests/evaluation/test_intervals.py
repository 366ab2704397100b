"""Intervals of accuracies against scipy's, and against what they promise: 95 % of all draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from prunecli.evaluation.intervals import paired_change, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (1, 1), (437, 500), (9000, 10000)])
def test_the_interval_of_a_share_is_that_of_scipy(right, count):
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.01), (0.1, 0.15), (0.005, 0.005)])
def test_the_interval_of_a_paired_change_holds_the_truth_in_95_of_100_draws(lost, gained):
    generator, count = np.random.default_rng(0), 400
    draws = generator.multinomial(count, [lost, gained, 1 - lost - gained], size=2000)
    intervals = [paired_change(int(b), int(c), count) for b, c, _ in draws]
    held = np.mean([low <= gained - lost <= high for low, high in intervals])
    assert 0.93 <= held <= 0.995


def test_a_change_is_surer_than_two_intervals_apart():
    low, high = paired_change(20, 10, 1000)
    assert low < -0.01 < high < 0.01
    one, other = wilson(880, 1000), wilson(870, 1000)
    assert high - low < one[1] - other[0]
