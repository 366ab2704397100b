"""The multiple-choice knapsack against brute force, alone and as an allocation."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecli.allocation import allocate, decayed_targets, solve_knapsack
from prunecli.allocation.knapsack import whole_units
from prunecli.errors import GateError, InputError
from tests.support.problems import Chain, Linear, best, kept, problem

classes = st.lists(
    st.lists(st.tuples(st.integers(-5, 20), st.integers(-3, 12)), min_size=1, max_size=5),
    min_size=1,
    max_size=5,
)


def brute_force(values, costs, capacity: int) -> float | None:
    """Return the best value over every choice within the capacity."""
    found = [
        sum(own[at] for own, at in zip(values, choice, strict=True))
        for choice in itertools.product(*(range(len(own)) for own in values))
        if sum(own[at] for own, at in zip(costs, choice, strict=True)) <= capacity
    ]
    return max(found, default=None)


@settings(max_examples=400, deadline=None)
@given(classes=classes, capacity=st.integers(-20, 60))
def test_the_solver_finds_what_brute_force_finds_at_every_capacity(classes, capacity: int) -> None:
    values = [np.asarray([float(value) for value, _ in own]) for own in classes]
    costs = [np.asarray([cost for _, cost in own]) for own in classes]
    solved = solve_knapsack(values, costs, capacity)
    for limit in {capacity, capacity - 7, solved.least}:
        if limit > capacity:
            continue
        expected = brute_force(values, costs, limit)
        if expected is None:
            with pytest.raises(GateError, match="holds no choice"):
                solved.at(limit)
            continue
        chosen = solved.at(limit)
        pairs = list(zip(values, costs, chosen, strict=True))
        assert sum(cost[at] for _, cost, at in pairs) <= limit
        assert sum(value[at] for value, _, at in pairs) == pytest.approx(expected)


def test_the_known_answers_of_the_notes() -> None:
    # A: values 5, 4, 1, costs 3, 1, 1; B: values 6, 2, costs 4, 1; the first k of each are options
    values = [np.asarray([0.0, 5, 9, 10]), np.asarray([0.0, 6, 8])]
    costs = [np.asarray([0, 3, 4, 5]), np.asarray([0, 4, 5])]
    chosen = solve_knapsack(values, costs, 6).at(6)
    assert chosen.tolist() == [3, 0]
    assert (values[0][3] + values[1][0], costs[0][3] + costs[1][0]) == (10, 5)
    # without precedence one could take 4 + 1 of A and 6 of B: that is worth 11 and 12 with 2 of B
    least_one = [own[1:] for own in values], [own[1:] for own in costs]
    chosen = solve_knapsack(*least_one, 7).at(7)
    assert (chosen + 1).tolist() == [1, 1]
    assert sum(own[at] for own, at in zip(least_one[0], chosen, strict=True)) == 11
    assert sum(own[at] for own, at in zip(least_one[1], chosen, strict=True)) == 7


def test_targets_decay_as_in_the_notes() -> None:
    assert decayed_targets(10, 5.5, 4) == pytest.approx([8.611735, 7.416198, 6.386634, 5.5])


def test_a_class_without_options_is_refused() -> None:
    with pytest.raises(InputError, match="no options"):
        solve_knapsack([np.zeros(0)], [np.zeros(0, int)], 3)


def test_whole_costs_keep_a_unit_and_others_a_resolution() -> None:
    tables = [np.asarray([0.0, 18.0, 36.0]), np.asarray([0.0, 27.0])]
    assert [own.tolist() for own in whole_units(tables, most=100, fine=50)] == [[0, 2, 4], [0, 3]]
    rounded = whole_units(tables, most=6, fine=50)
    assert [own.tolist() for own in rounded] == [[0, 14, 29], [0, 21]]
    rounded = whole_units([np.asarray([0.0, 0.5]), np.asarray([0.0, 1.5])], most=100, fine=8)
    assert [own.tolist() for own in rounded] == [[0, 2], [0, 6]]


# --- as an allocation ----------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    costs=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    ceiling=st.floats(0.1, 0.95),
    align=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_costs_that_do_not_depend_on_one_another_are_solved_exactly(
    widths: list[int], costs: list[int], ceiling: float, align: int, seed: int
) -> None:
    each = {"flops": [float(cost) for cost in costs[: len(widths)]]}
    case = problem(widths, each=each, ceiling=ceiling, seed=seed, align=align)
    if case.load(case.smallest) <= 1:
        assert kept(case, allocate("knapsack", case)) == pytest.approx(best(case))


class Steps(Linear):
    """A table of times per layer that rises in steps, as on a processor with wide registers."""

    def cost(self, widths) -> dict[str, float]:
        wide = 4 * np.ceil(np.asarray(widths) / 4)
        return {kind: float(np.dot(each, wide)) for kind, each in self.each.items()}


@pytest.mark.parametrize("seed", range(10))
def test_a_table_of_times_that_rises_in_steps_is_solved_exactly(seed: int) -> None:
    each = {"flops": [3.0, 5.0, 2.0]}
    case = problem([9, 12, 7], each=each, ceiling=0.4 + 0.05 * seed, seed=seed, cost=Steps)
    assert kept(case, allocate("knapsack", case)) == pytest.approx(best(case))


@pytest.mark.parametrize("seed", range(12))
def test_products_of_widths_come_close_to_the_best_there_is(seed: int) -> None:
    case = problem([6, 7, 5, 6], seed=seed, ceiling=0.3 + 0.05 * seed, cost=Chain)
    found = kept(case, allocate("knapsack", case))
    assert found >= kept(case, allocate("greedy", case))
    assert found >= 0.97 * best(case)


def test_two_limited_kinds_are_both_counted() -> None:
    each = {"flops": [1.0, 9.0, 2.0], "params": [9.0, 1.0, 2.0]}
    case = problem([8, 8, 8], each=each, ceiling=0.5, seed=3)
    case = replace(case, ceilings={"flops": 0.5 * 96, "params": 0.7 * 96})
    widths = allocate("knapsack", case)
    assert case.load(widths) <= 1
    assert kept(case, widths) >= 0.95 * best(case)
