"""What `prune` prints about methods that train while they prune."""

from __future__ import annotations

import dataclasses
import io
import time
from itertools import pairwise

import pytest
from rich.console import Console

from prunecli.progress import Step
from prunecli_cli.bars import bars, facts_text, lines
from prunecli_cli.method_tables import MOST_POINTS, thinned
from tests.support import fake_verbs
from tests.support.command_line import envelope, run

GATES = ("prune", "m.pt", "--flops", "0.5", "--data", "d", "--method", "exact-gates")


def told(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.strip() and line != "working"]


def test_a_search_is_told_in_about_ten_lines(verbs, capsys):
    _, _, err = run(capsys, *GATES)
    assert len(told(err)) <= 14  # one of them on dead channels, which searches do not look for
    assert "exact-gates (l2), greedy" in err
    assert "92.0 % -> 90.0 %, held out; best epoch 11 of 12" in " ".join(err.split())


def test_verbose_shows_the_course_and_what_had_no_gates(verbs, capsys):
    _, _, err = run(capsys, *GATES, "--verbose")
    words = " ".join(err.split())
    assert "it has a single channel" in words
    ends = [point for point in fake_verbs.learning_report().course if point.accuracy is not None]
    for point in ends:
        assert f"{point.epoch:.2f} {point.phase} {100 * point.budget:.1f}" in words
    rows = [line for line in err.splitlines() if line.split()[1:2] in (["search"], ["train"])]
    assert len(rows) == MOST_POINTS
    assert f"{len(fake_verbs.learning_report().course) - MOST_POINTS} more points" in words
    assert "4.5 of 12 epochs, 688 channels" in words
    assert max(map(len, err.splitlines())) <= 80


def test_a_plan_says_how_long_it_would_search(verbs, capsys):
    _, out, _ = run(capsys, *GATES, "--dry-run")
    assert "12 epochs, 4.5 of them choosing among 688 channels (fp32)" in out


def test_json_holds_every_point_and_every_reason(verbs, capsys):
    _, found = envelope(capsys, *GATES)
    learning = fake_verbs.learning_report()
    told_in_json = found["data"]["learning"]
    assert set(told_in_json) == {field.name for field in dataclasses.fields(learning)}
    assert len(told_in_json["course"]) == len(learning.course)
    for row, point in zip(told_in_json["course"], learning.course, strict=True):
        assert row == dataclasses.asdict(point)
    assert told_in_json["ungated"] == {"stem": "it has a single channel"}
    accuracy = {"before": 0.92, "after": 0.9, "split": "held_out", "measure": "accuracy"}
    assert told_in_json["accuracy"] == accuracy


# --- thinning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 14, 25, 40, 1000])
def test_a_thinned_course_keeps_the_ends_of_epochs_and_of_the_search_in_order(most):
    course = fake_verbs.learning_report().course
    kept = thinned(course, most)
    ends = [point for point in course if point.accuracy is not None]
    search = [point for point in course if point.phase == "search"]
    assert all(point in kept for point in (*ends, search[-1]))
    assert list(kept) == sorted(kept, key=lambda point: point.updates)
    assert len(kept) == min(max(most, len(ends) + 1), len(course))


def test_what_a_thinned_course_leaves_out_is_spread_evenly():
    kept = [p.epoch for p in thinned(fake_verbs.learning_report().course, 25) if p.epoch <= 4.5]
    gaps = [later - earlier for earlier, later in pairwise(kept)]
    assert max(gaps) <= 0.5 + 1e-9


# --- progress -------------------------------------------------------------------------------------


def test_shares_are_per_cents_and_counts_are_whole_numbers_beside_a_bar():
    facts = {"budget": 0.5, "expected": 0.512, "cost": 0.4987, "alive": 68.0, "flips": 3.0}
    assert facts_text(facts) == "budget 50.0% expected 51.2% cost 49.9% alive 68 flips 3"
    assert facts_text({"alive": 12345.0, "price": 0.01234}) == "alive 12345 price 0.0123"


def test_a_bar_in_a_narrow_terminal_leaves_out_no_fact():
    seen = {"epoch": "1/10", "loss": 0.412, "accuracy": 0.87, "images/s": 1240.0}
    gates = {"budget": 0.8, "expected": 0.81, "cost": 0.795, "alive": 500.0, "flips": 3.0}
    facts = {**seen, **gates, "price": 0.0123}
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with bars(console) as progress:
        progress(Step("train", 120, 3910, facts))
        time.sleep(0.3)
    drawn = console.file.getvalue()
    for words in ("train", "120/3910", "budget", "80.0%", "alive", "price", "0.0123"):
        assert words in drawn


def test_a_log_shows_where_a_search_stands():
    said: list[str] = []
    with lines(said.append) as progress:
        progress(Step("train", 0, 9, {"budget": 0.75, "alive": 288.0}))
    assert said == ["train budget 75.0% alive 288"]
