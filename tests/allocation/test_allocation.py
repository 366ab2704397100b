"""From saliencies to widths, against brute force on problems small enough to enumerate."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import prunecli
from prunecli.allocation import (
    ALLOCATIONS,
    BY_IMPORTANCE,
    Problem,
    allocate,
    allowed_widths,
    ceilings_of,
    check_feasible,
    keep_mask,
    refill,
)
from prunecli.budget import make_budget
from prunecli.cost.alignment import default_alignment
from prunecli.errors import GateError, InputError
from prunecli.importance import Measured, measure_importance
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.selection import select
from tests.support.problems import Chain, Linear, best, groups_of, kept, problem
from tests.support.random_networks import SIDE, draw, network
from tests.support.weights import randomize_

RULES = tuple(entry.name for entry in ALLOCATIONS)


def narrowest(rule: str, case: Problem) -> np.ndarray:
    """Return the narrowest widths that a rule may choose: `uniform-plus` spares both ends."""
    widths = case.smallest
    if rule == "uniform-plus":
        last = case.widths[-1]
        widths[-1] = last[last >= 0.2 * last[-1]][0]
        widths[0] = case.full[0]
    return widths


# --- alignment and allowed widths ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "multiple"),
    [(1, 4), (15, 4), (16, 8), (31, 8), (32, 16), (64, 16), (2048, 16)],
)
def test_wide_layers_are_aligned_more_coarsely(channels: int, multiple: int) -> None:
    assert default_alignment(channels) == multiple


def widths_of(width: int, *, align, multiplicity: int = 1, min_width: int = 1, eligible=True):
    (found,) = allowed_widths(
        groups_of([width], multiplicity),
        eligible=lambda _: eligible, align=align, min_width=min_width,
    )  # fmt: skip
    return found.tolist()


def test_allowed_widths_are_multiples_and_the_full_width() -> None:
    assert widths_of(10, align=4) == [4, 8, 10]
    assert widths_of(8, align=4) == [4, 8]
    assert widths_of(3, align=1) == [1, 2, 3]
    assert widths_of(64, align=default_alignment) == [16, 32, 48, 64]
    assert widths_of(24, align=default_alignment) == [8, 16, 24]


def test_a_width_narrower_than_the_alignment_stays_whole() -> None:
    assert widths_of(3, align=4) == [3]
    assert widths_of(4, align=4) == [4]


def test_a_minimal_width_takes_away_what_is_below_it() -> None:
    assert widths_of(10, align=2, min_width=5) == [6, 8, 10]
    assert widths_of(6, align=1, min_width=8, multiplicity=4) == [2, 3, 4, 5, 6]
    assert widths_of(4, align=1, min_width=9) == [4]


def test_a_group_that_may_not_be_cut_has_its_full_width_alone() -> None:
    assert widths_of(10, align=1, eligible=False) == [10]


@pytest.mark.parametrize("multiplicity", [1, 2, 3, 4, 6, 16])
@pytest.mark.parametrize("align", [1, 3, 4, 8, default_alignment])
def test_the_channels_of_a_grouped_convolution_are_aligned_and_not_its_groups(
    multiplicity: int, align
) -> None:
    found = widths_of(32, align=align, multiplicity=multiplicity)
    multiple = align if isinstance(align, int) else align(32 * multiplicity)
    expected = [width for width in range(1, 32) if width * multiplicity % multiple == 0]
    assert found == [*expected, 32]


def test_the_kept_channels_of_a_real_grouped_convolution_are_aligned() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(64, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    result = prunecli.prune(
        randomize_(model).eval(), torch.zeros(1, 3, 4, 4), flops=0.6, only=["0"], align=8
    )
    assert result.model[0].out_channels % 8 == 0
    assert result.model[2].groups == result.model[0].out_channels // 4 < 8


def test_ceilings_are_fractions_of_the_dense_cost_or_amounts() -> None:
    budget = make_budget(flops=0.25, params="3k")
    assert ceilings_of(budget, {"flops": 400.0, "params": 1e6}) == {"flops": 100, "params": 3000}


# --- the rules against brute force ---------------------------------------------------------------


@pytest.mark.parametrize("rule", ["global", "greedy", "knapsack"])
@pytest.mark.parametrize("seed", range(8))
def test_channels_that_cost_the_same_are_chosen_optimally(rule: str, seed: int) -> None:
    case = problem([4, 5, 3, 6], seed=seed, ceiling=0.25 + 0.1 * seed)
    assert kept(case, allocate(rule, case)) == pytest.approx(best(case))


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    costs=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    ceiling=st.floats(0.1, 0.95),
    seed=st.integers(0, 999),
)
def test_greedy_is_at_most_one_channel_worse_than_the_optimum(
    widths: list[int], costs: list[int], ceiling: float, seed: int
) -> None:
    each = {"flops": [float(cost) for cost in costs[: len(widths)]]}
    case = problem(widths, each=each, ceiling=ceiling, seed=seed)
    if case.load(case.smallest) > 1:
        return
    # The bound of every greedy choice by value per cost (Dantzig 1957).
    assert kept(case, allocate("greedy", case)) >= best(case) - case.saliency.max() - 1e-9


@pytest.mark.parametrize("ceiling", [0.3, 0.5, 0.77])
@pytest.mark.parametrize("align", [1, 2])
def test_uniform_takes_the_largest_common_fraction(ceiling: float, align: int) -> None:
    case = problem([6, 12, 9], ceiling=ceiling, cost=Chain, align=align)
    fractions = {width / full for full in (6, 12, 9) for width in range(1, full + 1)}

    def widths(fraction: float):
        return [
            max([option for option in options if option <= fraction * options[-1] + 1e-9],
                default=options[0])
            for options in case.widths
        ]  # fmt: skip

    expected = max(
        (widths(fraction) for fraction in fractions if case.load(widths(fraction)) <= 1), key=sum
    )
    assert ALLOCATIONS.get("uniform")(case).tolist() == expected


def test_global_takes_one_threshold_for_all_layers() -> None:
    saliency = [9, 8, 7, 6, 5, 0.1, 0.2, 0.3]
    case = problem([5, 3], saliency=saliency, ceiling=6 / 8)
    assert ALLOCATIONS.get("global")(case).tolist() == [5, 1]


def test_greedy_counts_the_costs_anew_after_every_channel() -> None:
    """Reference: one channel at a time, by a difference of true costs."""
    for seed in range(5):
        case = problem([30, 50, 20], seed=seed, cost=Chain, ceiling=0.4)
        widths = case.full.copy()
        while case.load(widths) > 1:
            ratios = {}
            for at in np.flatnonzero(widths > 1):
                narrower = widths - np.eye(3, dtype=int)[at]
                lost = case.sorted_saliency(at)[widths[at] - 1]
                ratios[at] = lost / (case.load(widths) - case.load(narrower))
            widths[min(ratios, key=ratios.get)] -= 1
        assert ALLOCATIONS.get("greedy")(case).tolist() == widths.tolist()


def test_greedy_removes_what_costs_most_per_saliency() -> None:
    saliency = [1.0, 1.0, 1.1, 1.1]
    case = problem([2, 2], saliency=saliency, each={"flops": [1.0, 10.0]}, ceiling=0.6)
    assert ALLOCATIONS.get("greedy")(case).tolist() == [2, 1]


def test_uniform_plus_spares_both_ends_and_is_uniform_between() -> None:
    case = problem([10, 20, 20, 10], ceiling=0.45)
    assert ALLOCATIONS.get("uniform-plus")(case).tolist() == [10, 7, 7, 3]
    case = problem([10, 20, 20, 10], ceiling=0.25)
    assert ALLOCATIONS.get("uniform-plus")(case).tolist() == [10, 1, 1, 2]


def test_uniform_plus_says_when_the_ends_alone_are_too_much() -> None:
    case = problem([40, 4, 10], ceiling=0.5)
    with pytest.raises(
        GateError, match="with its first layer whole, flops cannot go down"
    ) as found:
        allocate("uniform-plus", case)
    assert found.value.hint == "--allocation uniform reaches lower"


def test_the_ends_of_a_real_network_are_the_layer_of_the_image_and_what_the_classifier_reads() -> (
    None
):
    model = nn.Sequential(
        nn.Conv2d(3, 20, 1), nn.ReLU(), nn.Conv2d(20, 20, 1), nn.ReLU(), nn.Conv2d(20, 20, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 3),
    )  # fmt: skip
    example = torch.zeros(1, 3, 4, 4)
    result = prunecli.prune(
        randomize_(model).eval(), example, flops=0.27, align=1, allocation="uniform-plus",
        dry_run=True,
    )  # fmt: skip
    first, middle, last = (group.after for group in result.report.groups)
    assert first == 20
    assert last >= 4
    assert middle < 8


def test_erdos_renyi_keeps_more_of_layers_with_few_weights_for_their_width() -> None:
    case = problem([40, 40], ceiling=0.5)
    case = replace(case, shapes=(((40, 3, 3, 3),), ((40, 40, 3, 3),)))
    # densities in proportion to 49 / 1080 and 86 / 14400; 40 of 80 channels stay
    share = np.sqrt((86 / 14400) / (49 / 1080))
    first = 40 / (1 + share)
    assert ALLOCATIONS.get("erdos-renyi")(case).tolist() == [round(first), round(first * share)]


def test_erdos_renyi_needs_the_shapes_of_the_weights() -> None:
    with pytest.raises(InputError, match="needs the shapes"):
        allocate("erdos-renyi", replace(problem([4, 4]), shapes=()))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("inverse-importance", [33, 26, 12]), ("proportional-importance", [40, 21, 10])],
)
def test_layers_lose_by_their_importance(rule: str, expected: list[int]) -> None:
    case = replace(problem([40, 40, 40], ceiling=71 / 120), importance=np.asarray([4.0, 2.0, 1.0]))
    # inverse: (c/4 + c/2 + c) 40 = 49; proportional: 40 + 80 c + 40 c = 71
    assert ALLOCATIONS.get(rule)(case).tolist() == expected


@pytest.mark.parametrize("rule", BY_IMPORTANCE)
def test_the_importance_of_what_stays_whole_does_not_matter(rule: str) -> None:
    case = problem([10, 10, 10], ceiling=0.7, held=["layer1"])
    found = [
        allocate(rule, replace(case, importance=np.asarray([1.0, held, 2.0]))).tolist()
        for held in (1e-9, 1.0, 1e9, np.nan)
    ]
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("rule", BY_IMPORTANCE)
def test_an_importance_that_is_missing_or_not_positive_is_refused(rule: str) -> None:
    case = problem([4, 4])
    with pytest.raises(InputError, match="one importance per channel group"):
        allocate(rule, replace(case, importance=None))
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="the importance of layer1"):
            allocate(rule, replace(case, importance=np.asarray([1.0, bad])))


def test_lamp_scores_under_one_threshold_keep_the_known_weights() -> None:
    # (1, -2, 3) and (.1, .2): scores (1/14, 4/13, 1) and (.2, 1); of 5, 3 stay
    case = problem([3, 2], saliency=[1 / 14, 4 / 13, 1, 0.2, 1], ceiling=3 / 5)
    widths = allocate("global", case)
    keep = keep_mask(case.groups, case.saliency, widths)
    assert keep.tolist() == [False, True, True, False, True]


# --- what holds for every rule -------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cost", [Linear, Chain])
@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    ceiling=st.floats(0.02, 0.99),
    align=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_every_rule_fills_the_budget_and_never_exceeds_it(  # noqa: PLR0917 - hypothesis fills them
    rule: str, cost, widths: list[int], ceiling: float, align: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    saliency = random.random(sum(widths)) - 0.5 * (seed % 2)
    each = {
        kind: (random.random(len(widths) + (cost is Chain)) + 0.05).tolist()
        for kind in ("flops", "params")
    }
    case = problem(
        widths, each=each, saliency=saliency, ceiling=ceiling, align=align, cost=cost
    )  # fmt: skip
    try:
        found = allocate(rule, case)
    except GateError:
        assert case.load(narrowest(rule, case)) > 1
        return
    assert case.load(found) <= 1
    assert (found >= 1).all()
    for at, options in enumerate(case.widths):
        assert found[at] in options
        wider = options[options > found[at]]
        if wider.size:
            trial = found.copy()
            trial[at] = wider[0]
            assert case.load(trial) > 1, "one more step would have fitted"


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_empties_a_group_that_seems_worthless(rule: str) -> None:
    case = problem([4, 4], saliency=[0, 0, 0, 0, 9, 8, 7, 6], ceiling=0.7)
    assert (allocate(rule, case) >= 1).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_network_within_the_budget_stays_whole(rule: str) -> None:
    case = problem([4, 4], ceiling=1.5)
    assert allocate(rule, case).tolist() == [4, 4]


@pytest.mark.parametrize("rule", RULES)
def test_a_group_that_the_signal_cannot_see_stays_whole(rule: str) -> None:
    saliency = [np.nan] * 4 + [1, 2, 3, 4]
    case = problem([4, 4], saliency=saliency, ceiling=0.75, held=["layer0"])
    assert allocate(rule, case).tolist() == [4, 2]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_gives_the_same_widths_again(rule: str) -> None:
    case = problem([7, 9, 5], cost=Chain, saliency=[1.0] * 21)
    assert allocate(rule, case).tolist() == allocate(rule, case).tolist()


def test_refill_gives_back_the_best_channel_for_its_cost_first() -> None:
    case = problem([3, 3], saliency=[5, 1, 1, 5, 4, 1], ceiling=0.5)
    assert refill(case, np.asarray([1, 1])).tolist() == [1, 2]


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "uniform-plus"])
def test_two_ceilings_hold_at_once_where_one_alone_would_not(rule: str) -> None:
    each = {"flops": [1.0, 9.0], "params": [9.0, 1.0]}
    case = problem([10, 10], each=each, ceiling=0.5)
    cost = case.cost.cost(allocate(rule, case))
    assert cost["flops"] <= 50
    assert cost["params"] <= 50


# --- real networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_every_rule_keeps_the_budget_of_a_random_network_and_empties_no_layer(seed: int) -> None:
    steps, head = draw(seed)
    found = read_network(network(steps, head=head, seed=seed), [torch.zeros(2, 3, SIDE, SIDE)])
    saliency = np.random.default_rng(seed).random(found.coupling.atom_count)
    importance = measure_importance("energy", Measured(found, saliency, None))
    budget = make_budget(flops=0.6) if seed % 8 else make_budget(flops=0.7, params=0.6)
    for rule in RULES:
        options = PruneOptions(allocation=rule, align=1, min_width=1 + seed % 3)
        with suppress(GateError):
            first, again = (
                select(found, saliency, budget, options, held={}, importance=importance).widths
                for _ in range(2)
            )
            after, dense = found.cost.cost(first), found.cost.dense
            assert all(
                after[limit.kind] <= limit.ceiling(dense[limit.kind]) for limit in budget.limits
            )
            assert (first >= 1).all()
            assert (first == again).all()


# --- which channels stay -------------------------------------------------------------------------


def test_the_most_salient_channels_stay() -> None:
    saliency = np.asarray([3.0, 1.0, 2.0, 0.5, 0.7])
    keep = keep_mask(groups_of([3, 2]), saliency, np.asarray([2, 1]))
    assert keep.tolist() == [True, False, True, False, True]


def test_of_equal_channels_those_with_the_lowest_index_stay() -> None:
    keep = keep_mask(groups_of([4]), np.asarray([1.0, 1.0, 2.0, 1.0]), np.asarray([2]))
    assert keep.tolist() == [True, False, True, False]


def test_of_equal_groups_greedy_cuts_the_first() -> None:
    case = problem([4, 4], saliency=[1.0] * 8, ceiling=7 / 8)
    assert ALLOCATIONS.get("greedy")(case).tolist() == [3, 4]


# --- budgets that cannot be met ------------------------------------------------------------------


def test_an_infeasible_budget_names_the_lowest_and_what_holds_it_up() -> None:
    case = problem([8, 2], each={"flops": [1.0, 46.0]}, ceiling=0.3, align=2)
    with pytest.raises(GateError) as caught:
        check_feasible(case)
    # 2 of 8 channels at 1, and the second group whole at 2 x 46, of 100
    assert "cannot go down to 0.300" in caught.value.message
    assert "the lowest reachable is 0.940" in caught.value.message
    assert caught.value.where == (
        "what stays whatever is cut: layer1 92.0 % (its 2 channels stay), "
        "layer0 2.0 % (2 of 8 channels are the least)"
    )
    assert "--flops 0.95 or more" in caught.value.hint


def test_an_infeasible_sparsity_is_told_in_the_users_own_words() -> None:
    case = problem([8, 8], each={"channels": [1.0, 1.0]}, ceiling=0.1, align=4)
    with pytest.raises(GateError) as caught:
        check_feasible(case)
    assert "--sparsity 0.49 or less" in caught.value.hint
    assert "--channels" not in caught.value.hint


def test_the_budget_that_the_hint_names_is_reachable() -> None:
    model = randomize_(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3),
                                     nn.Flatten(), nn.Linear(256, 3))).eval()  # fmt: skip
    for kind, far, flag in (("flops", 1e-4, "--flops "), ("sparsity", 0.999, "--sparsity ")):
        with pytest.raises(GateError) as caught:
            prunecli.prune(model, torch.zeros(1, 3, 8, 8), align=4, **{kind: far})
        named = float(caught.value.hint.split(flag)[1].split()[0])
        prunecli.prune(model, torch.zeros(1, 3, 8, 8), align=4, dry_run=True, **{kind: named})
