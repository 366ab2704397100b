"""Groups of one width: allocated as one group, against brute force over all widths."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from prunecli.allocation import ALLOCATIONS, Problem, allocate, linked
from tests.support.problems import kept, problem


def case(widths, *, seed: int = 0, held=()) -> Problem:
    """Return a problem over real closed forms: a term for every group and every pair of them."""
    found = problem(widths, seed=seed, held=held)
    return replace(found, cost=_cost(widths))


def _cost(widths):
    from prunecli.cost.model import CostModel

    count = len(widths)
    pairs = list(itertools.combinations(range(count), 2))
    factors = np.asarray([(at, count) for at in range(count)] + pairs)
    weights = np.random.default_rng(5).integers(1, 6, len(factors)).astype(float)
    return CostModel(
        base=np.asarray([0.0] * count + [1.0]),
        counts=np.vstack([np.eye(count), np.zeros((1, count))]),
        coefficients=weights,
        factors=factors,
        kinds={"flops": slice(0, len(factors))},
        nodes=("op",) * len(factors),
        weights={},
        dense_widths=np.asarray(widths),
        not_counted={},
    )


def budgeted(found: Problem, part: float = 0.5) -> Problem:
    return replace(found, ceilings={"flops": part * found.cost.dense["flops"]})


@pytest.mark.parametrize("rule", [entry.name for entry in ALLOCATIONS])
def test_linked_groups_get_one_width_within_the_budget(rule):
    found = budgeted(case([6, 8, 6, 5]))
    sets = linked(found, [(0, 2)])
    widths = sets.expand(allocate(rule, sets.problem))
    assert widths.shape == (4,)
    assert widths[0] == widths[2]
    assert found.load(widths) <= 1.0


def test_the_cost_of_a_set_is_that_of_its_groups():
    found = budgeted(case([6, 8, 6, 5]))
    sets = linked(found, [(0, 2)])
    narrow = np.asarray([3, 7, 5])
    assert sets.expand(narrow).tolist() == [3, 7, 3, 5]
    assert sets.problem.cost.cost(narrow) == found.cost.cost(np.asarray([3, 7, 3, 5]))
    step = sets.problem.cost.gradient("flops", narrow)
    own = found.cost.gradient("flops", sets.expand(narrow))
    np.testing.assert_allclose(step, [own[0] + own[2], own[1], own[3]])


def test_a_set_is_worth_what_is_best_in_each_of_its_groups():
    found = budgeted(case([4, 3, 4], seed=2))
    sets = linked(found, [(0, 2)])
    for widths in itertools.product(range(1, 5), range(1, 4)):
        assert kept(sets.problem, widths) == pytest.approx(
            kept(found, sets.expand(np.asarray(widths)))
        )


def test_the_best_widths_of_a_knapsack_are_the_best_of_all_that_agree():
    found = budgeted(case([4, 3, 4], seed=3))
    sets = linked(found, [(0, 2)])
    widths = sets.expand(allocate("knapsack", sets.problem))
    agreeing = [
        one for one in itertools.product(*found.widths) if one[0] == one[2] and found.load(one) <= 1
    ]
    best = max(kept(found, one) for one in agreeing)
    assert kept(found, widths) >= 0.9 * best


def test_a_set_stays_whole_with_any_of_its_groups():
    sets = linked(budgeted(case([6, 8, 6], held=("layer2",))), [(0, 2)])
    assert [options.tolist()[-1:] for options in sets.problem.widths] == [[6], [8]]
    assert sets.problem.widths[0].tolist() == [6]


def test_groups_that_have_lost_channels_already_are_not_linked():
    found = budgeted(case([6, 8, 6]))
    gone = replace(found, widths=(np.arange(1, 5), found.widths[1], found.widths[2]))
    assert linked(gone, [(0, 2)]).members == ((0,), (1,), (2,))


def test_without_links_a_problem_stays_what_it_is():
    found = budgeted(case([6, 8, 6, 5]))
    sets = linked(found, [])
    assert sets.problem.groups == found.groups
    np.testing.assert_array_equal(sets.problem.saliency, found.saliency)
    for rule in ("uniform", "greedy"):
        np.testing.assert_array_equal(
            sets.expand(allocate(rule, sets.problem)), allocate(rule, found)
        )
