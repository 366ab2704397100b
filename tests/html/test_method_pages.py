"""Pages of methods that learn what to prune: the figures of their reports."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from prunecli import report
from prunecli.html import cut_page
from prunecli.wording import percent
from tests.support import fake_verbs, html_checks
from tests.support.hostile import HOSTILE


def page(learning: report.LearningReport, output: Path | None = Path("x.pt")) -> html_checks.Reader:
    made = dataclasses.replace(fake_verbs.prune_report(output), learning=learning)
    groups = tuple(
        report.GroupReport(name, 64, 32, 0.1, 0.1) for name in ("layer1.0.conv1", "stem")
    )
    return html_checks.read(cut_page(dataclasses.replace(made, groups=groups)))


def described(reader: html_checks.Reader) -> list[str]:
    return [attributes["aria-label"] for tag, attributes in reader.elements if tag == "svg"]


def test_the_accuracy_before_and_after_is_a_headline():
    words = " ".join(page(fake_verbs.learning_report()).words)
    assert "accuracy 90.0 % 92.0 % before, on 1,024 held-out images" in words
    after = " ".join(page(fake_verbs.trained_report()).words)
    assert "accuracy 88.0 % 40.0 % before training, on 1,024 held-out images" in after


def test_the_course_is_drawn_and_told_point_by_point():
    learning = fake_verbs.learning_report()
    reader = page(learning)
    words = " ".join(reader.words)
    assert "688 channels were chosen from by exact-gates in the first 4.5 of 12 epochs." in words
    assert "method exact-gates, 12 epochs" in words
    for point in learning.course:
        row = (
            f"{point.updates:,} {point.epoch:.2f} {point.phase} {percent(point.budget)} "
            f"{percent(point.expected)} {percent(point.cost)} {point.alive:,} {point.flips:,}"
        )
        assert row in words
    texts = described(reader)
    assert sum("12 epochs, 4.5 of them choosing channels" in text for text in texts) == 2
    assert sum("channels kept of every group" in text for text in texts) == 2


def test_groups_without_gates_are_listed_with_their_reasons():
    learning = fake_verbs.learning_report()
    words = " ".join(page(learning).words)
    assert "1 channel group was left out." in words
    assert "stem 64 it has a single channel" in words
    none = dataclasses.replace(learning, ungated={})
    assert "left out" not in " ".join(page(none).words)


def test_a_plan_says_what_would_be_searched_and_draws_nothing():
    planned = fake_verbs.learning_report(dry_run=True)
    reader = page(planned, None)
    words = " ".join(reader.words)
    assert "688 channels would be chosen from" in words
    assert "stem 64 it has a single channel" in words
    assert not any("choosing channels" in text for text in described(reader))


def test_a_training_after_a_cut_has_no_search_on_its_page():
    reader = page(fake_verbs.trained_report())
    words = " ".join(reader.words)
    assert "Training after the cut" in words
    assert "40.0 % for the pruned model before training, 88.0 % in the end" in words
    assert not any("every group" in text for text in described(reader))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_groups_are_shown_and_never_obeyed(name):
    learning = fake_verbs.learning_report(groups=(name,))
    page(dataclasses.replace(learning, ungated={name: name}))
