"""Known answers of the bandit that chooses channels."""

from __future__ import annotations

import numpy as np
import pytest

from prunecli.methods.dynamic.bandit import (
    EXPLORE,
    confidence_bounds,
    learn_,
    scaled,
    top,
    warm_sets,
)


@pytest.mark.parametrize(
    ("means", "counts", "step", "bounds", "best"),
    [
        ((0.5, 0.4, 0.45, 0.1), (10, 2, 8, 1), 21, (1.175780, 1.911090, 1.205545, 2.237003),
         {3, 1}),
        ((0.9, 0.85, 0.3, 0.1), (50, 50, 49, 1), 100, (1.271692, 1.221692, 0.675466, 2.728261),
         {3, 0}),
    ],
)  # fmt: skip
def test_the_published_index_at_two_known_places(means, counts, step, bounds, best):
    found = confidence_bounds(np.array(means), np.array(counts), step, explore=EXPLORE)
    assert found == pytest.approx(bounds, abs=5e-7)
    assert set(top(found, 2).tolist()) == best


def test_the_radius_grows_with_the_root_of_what_explores():
    means, counts = np.zeros(2), np.array([1, 4])
    one = confidence_bounds(means, counts, 9, explore=1.0)
    assert confidence_bounds(means, counts, 9, explore=4.0) == pytest.approx(2 * one)
    assert confidence_bounds(means + 0.3, counts, 9, explore=0.0) == pytest.approx([0.3, 0.3])
    assert one[0] == pytest.approx(2 * one[1])


def test_a_channel_that_never_ran_comes_before_all_others():
    bounds = confidence_bounds(np.array([1.0, 0.0]), np.array([1, 0]), 1000, explore=EXPLORE)
    assert top(bounds, 1).tolist() == [1]


def test_the_simulation_settles_on_the_best_channels():
    rewards = np.array([0.9, 0.8, 0.2, 0.1])
    means, counts = np.zeros(4), np.zeros(4, np.int64)
    hits = 0
    for step in range(1, 503):
        if step <= 2:
            chosen = np.array([0, 1]) + 2 * (step - 1)
        else:
            chosen = top(confidence_bounds(means, counts, step, explore=EXPLORE), 2)
            hits += chosen.tolist() == [0, 1]
        learn_(means, counts, chosen, rewards[chosen])
    assert hits / 500 > 0.9
    assert counts.tolist() == [500, 472, 18, 14]
    assert means == pytest.approx(rewards)


@pytest.mark.parametrize(("width", "count"), [(7, 3), (6, 3), (5, 5), (4, 1), (9, 8)])
def test_the_warm_start_runs_every_channel_in_sets_of_one_size(width, count):
    sets = warm_sets(np.random.default_rng(0).permutation(width), count)
    assert len(sets) == -(-width // count)
    assert all(len(set(chosen.tolist())) == count for chosen in sets)
    runs = np.bincount(np.concatenate(sets), minlength=width)
    assert runs.min() == 1
    assert runs.sum() == len(sets) * count
    assert runs.max() <= 2  # the last set alone is filled up


def test_ties_go_to_the_lowest_channel():
    assert top(np.array([0.3, 0.5, 0.3, 0.5, 0.3]), 3).tolist() == [0, 1, 3]
    assert top(np.full(4, np.inf), 2).tolist() == [0, 1]


def test_rewards_are_scaled_by_their_largest_and_empty_ones_are_none():
    assert scaled(np.array([2.0, 8.0, 0.0])) == pytest.approx([0.25, 1.0, 0.0])
    assert scaled(np.zeros(3)) is None
    assert scaled(np.array([1.0, np.inf])) is None
    assert scaled(np.array([1.0, np.nan])) is None


def test_a_mean_that_forgets_starts_at_its_first_reward():
    means, counts = np.zeros(3), np.zeros(3, np.int64)
    for reward in (0.8, 0.4, 0.0):
        learn_(means, counts, np.array([0, 2]), np.array([reward, 1.0]), decay=0.9)
    assert means == pytest.approx([0.9 * (0.9 * 0.8 + 0.1 * 0.4), 0.0, 1.0])
    plain = np.zeros(3)
    counts[:] = 0
    for reward in (0.8, 0.4, 0.0):
        learn_(plain, counts, np.array([0]), np.array([reward]))
    assert plain == pytest.approx([0.4, 0.0, 0.0])
    assert counts.tolist() == [3, 0, 0]
