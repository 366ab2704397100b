"""A timing that other programs interrupted is told as uncertain, wherever it is shown."""

from __future__ import annotations

import dataclasses

import pytest

from prunecli.report.steadiness import unsteady_batches, unsteady_warnings
from tests.support.benchmark_rows import benchmark_row

ONE = benchmark_row(1.75, 1.73, 1.77, batch=1, slim_ms=0.4)


@pytest.mark.parametrize(
    ("eight", "why"),
    [
        (benchmark_row(1.85, 1.8, 1.9), None),
        (benchmark_row(3.98, 1.24, 4.21), "interval of the speed-up is 1.24 to 4.21"),
        # A narrow interval, but the original takes 2.75 ms an image, alone 0.7.
        (benchmark_row(7.33, 7.19, 7.5), "an image takes 3.9 times as long as at batch 1"),
        (benchmark_row(1.85, 1.8, 1.9, slim_ms=6.0), "an image takes 2.0 times as long"),
    ],
)
def test_a_timing_that_other_programs_interrupted_is_found_and_says_what_shows_it(eight, why):
    assert unsteady_batches((ONE, eight)) == (() if why is None else (8,))
    warnings = unsteady_warnings((ONE, eight))
    assert len(warnings) == (why is not None)
    assert all(why in text and "on cpu at batch 8" in text for text in warnings)


def test_a_device_is_compared_with_itself_alone():
    slow = benchmark_row(1.85, 1.8, 1.9, batch=8, slim_ms=40.0, device="cuda")
    assert unsteady_batches((ONE, slow)) == ()


def test_a_timing_without_an_original_is_judged_by_its_own_times():
    def alone(row):
        return dataclasses.replace(
            row, dense_ms=None, speedup=None, speedup_low=None, speedup_high=None
        )

    steady, slow = alone(benchmark_row(1.8, 1.7, 1.9)), alone(benchmark_row(1.8, 1, 2, slim_ms=9.0))
    assert unsteady_batches((alone(ONE), steady)) == ()
    assert unsteady_batches((alone(ONE), slow)) == (8,)
