"""Gates: every one judged on reports whose figures lie on both sides of what is demanded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from prunecli.report import (
    NO_GATES,
    AccuracyChange,
    Evaluation,
    Gates,
    gates_text,
    missed_gate,
)
from tests.support import fake_verbs

PATH = Path("x.pt")


def tuned(after: float, *, teacher: float | None = None):
    return dataclasses.replace(
        fake_verbs.finetune_report(PATH),
        accuracy=AccuracyChange(0.1, after, "test"),
        teacher=teacher,
    )


def timed(*rows: tuple[str, int, float | None]):
    report = fake_verbs.export_report(PATH)
    (row,) = report.benchmark
    return dataclasses.replace(
        report,
        benchmark=tuple(
            dataclasses.replace(row, device=device, batch=batch, speedup=factor)
            for device, batch, factor in rows
        ),
    )


@pytest.mark.parametrize("after", [0.9, 0.8999])
def test_the_accuracy_may_equal_what_is_demanded_and_not_be_below(after):
    for report in (tuned(after), Evaluation(after, 1.0, 0.1, 100)):
        error = missed_gate(Gates(min_accuracy=0.9), report)
        assert (error is None) == (after == 0.9)
    if error is not None:
        assert error.message == "accuracy is 0.8999, and --min-accuracy asks for 0.9 or more"
        assert (error.code, error.where, error.exit_code) == ("GATE_NOT_MET", "--min-accuracy", 1)


@pytest.mark.parametrize(("after", "met"), [(1.0, True), (0.75, True), (0.5, True), (0.25, False)])
def test_the_drop_is_that_against_the_teacher_or_against_what_is_named(after, met):
    gates = Gates(max_drop=0.5)
    with_teacher = missed_gate(gates, tuned(after, teacher=1.0))
    named = missed_gate(gates, Evaluation(after, 1.0, 0.1, 100), reference=1.0)
    for error in (with_teacher, named):
        assert (error is None) == met
        if error is not None:
            assert error.message == "the drop in accuracy is 0.75, and --max-drop allows 0.5"


def test_a_drop_without_anything_to_compare_with_is_missed():
    error = missed_gate(Gates(max_drop=0.0), tuned(0.1))
    assert error.message.startswith("no drop in accuracy was measured")
    assert error.where == "--max-drop"
    assert gates_text(Gates(max_drop=0.0), tuned(0.1)) == f"not met: {error.message}"
    assert missed_gate(NO_GATES, tuned(0.1)) is None


def test_the_lower_accuracy_is_told_before_the_drop():
    error = missed_gate(Gates(min_accuracy=0.9, max_drop=0.01), tuned(0.5, teacher=1.0))
    assert error.where == "--min-accuracy"


@pytest.mark.parametrize(
    ("factors", "where"),
    [((1.5, 1.6), None), ((1.6, 1.4), "cuda at batch 8"), ((1.2, 1.1), "cpu at batch 1")],
)
def test_every_speedup_has_to_be_reached_and_the_first_that_is_not_is_told(factors, where):
    report = timed(("cpu", 1, factors[0]), ("cuda", 8, factors[1]), ("cuda", 1, None))
    error = missed_gate(Gates(min_speedup=1.5), report)
    assert (error is None) == (where is None)
    if error is not None:
        assert error.message.startswith(f"the speed-up on {where} is ")


@pytest.mark.parametrize("rows", [(), (("cpu", 1, None),)])
def test_a_speedup_that_was_not_measured_is_missed(rows):
    error = missed_gate(Gates(min_speedup=1.0), timed(*rows))
    assert error.message.startswith("no speed-up was measured")
    assert "--against" in error.hint
    assert missed_gate(NO_GATES, timed(*rows)) is None


@pytest.mark.parametrize("met", [True, False, None])
def test_a_latency_budget_is_a_gate_that_nobody_has_to_state(met):
    latency = dataclasses.replace(fake_verbs.latency_report(met=False), met=met)
    report = dataclasses.replace(fake_verbs.prune_report(PATH), latency=latency)
    error = missed_gate(NO_GATES, report)
    assert (error is None) == (met is not False)
    if error is not None:
        tighter = latency.asked * latency.kept / latency.measured_kept
        assert f"--latency {tighter:.2f}" in error.hint
        assert f"{latency.measured_kept:.3f}" in error.message
    assert missed_gate(NO_GATES, fake_verbs.prune_report(PATH)) is None


def test_a_page_is_told_what_the_command_line_is_told():
    report = tuned(0.8)
    missed = Gates(min_accuracy=0.9)
    assert gates_text(NO_GATES, report) == ""
    assert gates_text(Gates(min_accuracy=0.8), report) == "met"
    assert gates_text(missed, report) == f"not met: {missed_gate(missed, report).message}"
