"""What people wish for as budgets, and whether a result meets it."""

from __future__ import annotations

import pytest

from prunecli.budget import Limit
from prunecli.compression.wishes import exceeded, judged, read_wishes
from prunecli.errors import InputError
from prunecli.options import WishOptions
from prunecli.report import BenchmarkRow, ModelFigures

DENSE = {"flops": 200e6, "params": 1e6, "bytes": 4e6, "latency": 10.0}


def row(dense_ms: float, slim_ms: float, *, spread: float = 0.0) -> BenchmarkRow:
    speedup = dense_ms / slim_ms
    return BenchmarkRow(
        device="cpu", provider="CPUExecutionProvider", batch=1, threads=1, dense_ms=dense_ms,
        slim_ms=slim_ms, speedup=speedup, speedup_low=speedup - spread,
        speedup_high=speedup + spread, flops_ratio=None, dense_percentiles={},
        slim_percentiles={}, runs=50,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "kind", "share"),
    [
        ({"speedup": 2.0}, "latency", 0.5),
        ({"latency": "5ms"}, "latency", 0.5),
        ({"flops": "50%"}, "flops", 0.5),
        ({"flops": "50M"}, "flops", 0.25),
        ({"params": "0.3"}, "params", 0.3),
        ({"size": "1MB"}, "bytes", 0.25),
    ],
)
def test_a_wish_is_a_budget_and_half_of_it_takes_half_as_much_away(wish, kind, share):
    wishes = read_wishes(WishOptions(**wish))
    (limit,) = wishes.budget(1.0, {}, {}).limits
    assert limit.kind == kind
    assert limit.ceiling(DENSE[kind]) == pytest.approx(share * DENSE[kind])
    (half,) = wishes.budget(0.5, DENSE, {}).limits
    assert half.ceiling(DENSE[kind]) == pytest.approx((1 + share) / 2 * DENSE[kind])
    (tight,) = wishes.budget(1.0, {}, {kind: 0.9}).limits
    assert tight.ceiling(DENSE[kind]) == pytest.approx(0.9 * share * DENSE[kind])


def test_a_drop_alone_searches_over_the_flops():
    wishes = read_wishes(WishOptions(max_drop=0.01))
    assert [limit.kind for limit in wishes.limits] == ["flops"]
    assert wishes.asked == {}


@pytest.mark.parametrize(
    ("wish", "code", "says"),
    [
        ({}, "NO_WISH", "nothing"),
        ({"speedup": 2.0, "latency": "0.5"}, "BAD_WISH", "same thing"),
        ({"speedup": 1.0}, "BAD_BUDGET", "no factor above 1"),
        ({"flops": "2"}, "BAD_BUDGET", "above 1"),
        ({"size": "small"}, "BAD_BUDGET", "not a number"),
    ],
)
def test_wishes_that_are_none_are_refused(wish, code, says):
    with pytest.raises(InputError, match=says) as caught:
        read_wishes(WishOptions(**wish))
    assert caught.value.code == code


def test_what_was_measured_above_its_budget_is_told_by_how_much():
    wishes = read_wishes(WishOptions(speedup=2.0, size="0.25"))
    budget = wishes.budget(1.0, {}, {})
    before = ModelFigures(200e6, 1e6, 4_000_000)
    after = ModelFigures(90e6, 4e5, 1_100_000)
    beyond = exceeded(wishes, budget, before, after, row(10, 6))
    assert beyond == pytest.approx({"latency": 1.2, "bytes": 1.1})
    assert exceeded(wishes, budget, before, ModelFigures(1, 1, 999_999), row(10, 5)) == {}


def test_every_wish_is_judged_by_what_was_measured():
    wishes = read_wishes(WishOptions(speedup=2.0, flops="0.5", size="1MB", max_drop=0.01))
    before, after = ModelFigures(200e6, 1e6, 4_000_000), ModelFigures(90e6, 4e5, 1_100_000)
    found = {one.wish: one for one in judged(wishes, before, after, row(10, 6), 0.02)}
    assert {name: one.ok for name, one in found.items()} == {
        "speedup": False, "flops": True, "size": False, "max_drop": False,
    }  # fmt: skip
    assert (found["speedup"].asked, found["speedup"].got) == (2.0, pytest.approx(10 / 6))
    assert (found["size"].asked, found["size"].got) == (1_000_000, 1_100_000)
    assert (found["max_drop"].asked, found["max_drop"].got) == (0.01, 0.02)


def test_a_speed_is_met_within_the_interval_of_its_measurement_and_never_unmeasured():
    wishes = read_wishes(WishOptions(speedup=2.0))
    figures = ModelFigures(1.0, 1.0, 1)

    def met(timed):
        return [one.ok for one in judged(wishes, figures, figures, timed, None)]

    assert met(row(10, 5.1, spread=0.05)) == [True]
    assert met(row(10, 5.1, spread=0.01)) == [False]
    assert met(None) == [False]


def test_a_latency_is_judged_in_milliseconds():
    figures = ModelFigures(1.0, 1.0, 1)
    (asked,) = judged(read_wishes(WishOptions(latency="5ms")), figures, figures, row(20, 4.5), None)
    assert (asked.asked, asked.got, asked.ok) == (5.0, 4.5, True)
    (share,) = judged(read_wishes(WishOptions(latency="0.2")), figures, figures, row(20, 4.5), None)
    assert (share.asked, share.ok) == (4.0, False)
    assert read_wishes(WishOptions(latency="0.2")).limits == (Limit("latency", fraction=0.2),)
