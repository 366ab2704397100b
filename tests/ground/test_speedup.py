"""A speed-up as a budget."""

from __future__ import annotations

import pytest

from prunecli.budget import make_budget
from prunecli.errors import InputError


def test_a_speed_up_is_the_share_of_the_time_that_it_leaves():
    assert make_budget(speedup="2") == make_budget(latency=0.5)
    assert make_budget(speedup="1.25x", flops=0.5) == make_budget(latency=0.8, flops=0.5)


@pytest.mark.parametrize(
    "amounts",
    [
        {"speedup": "1"},
        {"speedup": "fast"},
        {"speedup": "inf"},
        {"speedup": 2, "latency": 0.5},
    ],
)
def test_a_speed_up_that_is_none_is_refused(amounts):
    with pytest.raises(InputError) as caught:
        make_budget(**amounts)
    assert caught.value.code == "BAD_BUDGET"
