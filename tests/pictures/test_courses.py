"""Pictures of methods that learn what to prune: what is drawn is what the course holds."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from prunecli import report
from prunecli.pictures import course_picture, widths_picture
from prunecli.pictures.courses import AFTER, COLUMNS, widths_at
from prunecli.pictures.layers import MOST
from tests.support import fake_verbs


def made(learning: report.LearningReport, *, width: int = 64, kind: str = "flops"):
    """Return a report of a cut whose groups are those of a course, all of one width."""
    groups = tuple(
        report.GroupReport(name, width, 32, 0.1, 0.1)
        for name in dict.fromkeys(name for point in learning.course for name in point.widths)
    )
    found = fake_verbs.prune_report(Path("x.pt"))
    plan = {**found.plan, "budget": {kind: {"fraction": 0.5}}}
    return dataclasses.replace(found, learning=learning, groups=groups, plan=plan)


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
    }


def searched(*widths: dict[str, int], end: float, after: dict[str, int]) -> report.LearningReport:
    """Return a course with a point every half epoch of the search, and one epoch after it."""
    whole = fake_verbs.learning_report()
    first = whole.course[0]
    points = [
        dataclasses.replace(first, epoch=0.5 * at, phase="search", widths=kept)
        for at, kept in enumerate(widths, start=1)
    ]
    last = dataclasses.replace(
        whole.course[-1], epoch=float(np.ceil(end)), phase="train", widths=after
    )
    return dataclasses.replace(whole, search_epochs=end, course=(*points, last))


def test_the_budget_the_expected_and_the_hard_cost_are_drawn_over_the_epochs():
    learning = fake_verbs.learning_report()
    shares, _, _ = course_picture(made(learning, kind="params")).figure.axes
    drawn = lines(shares)
    epochs = [0.0, *(point.epoch for point in learning.course)]
    for label, name in (("budget", "budget"), ("expected cost", "expected"), ("hard cost", "cost")):
        at, values = drawn[label]
        assert at == epochs
        assert values[0] == 100
        np.testing.assert_allclose(values[1:], [100 * getattr(p, name) for p in learning.course])
    assert set(drawn["end of the search"][0]) == {learning.search_epochs}
    assert shares.get_title(loc="left") == "Share of the parameters (%)"


def test_every_epoch_has_its_held_out_accuracy_and_the_result_is_marked():
    learning = fake_verbs.learning_report()
    _, accuracy, loss = course_picture(made(learning)).figure.axes
    drawn = lines(accuracy)
    at, values = drawn["held out"]
    assert at == list(range(fake_verbs.EPOCHS + 1))
    expected = [100 * point.accuracy for point in learning.course if point.accuracy is not None]
    np.testing.assert_allclose(values, [92.0, *expected])
    assert drawn["result"] == ([11], [90.0])
    assert set(drawn["original model"][1]) == {92.0}
    for axes in (accuracy, loss):
        ends = [line for line in axes.get_lines() if set(line.get_xdata()) == {4.5}]
        assert len(ends) == 1


def test_a_training_after_a_cut_at_once_has_scores_alone():
    picture = course_picture(made(fake_verbs.trained_report()))
    accuracy, loss = picture.figure.axes
    assert lines(accuracy)["held out"][0] == [0, 1, 2, 3]
    assert set(lines(accuracy)["before training"][1]) == {40.0}
    assert "original model" not in lines(accuracy)
    assert loss.get_title(loc="left") == "Loss"
    assert "40.0% accuracy before, 88.0% in the end" in picture.description


def test_widths_are_strips_that_hold_until_the_next_point():
    learning = searched({"a": 6, "b": 8}, {"a": 4, "b": 8}, end=1.25, after={"a": 5, "b": 2})
    (axes,) = widths_picture(made(learning, width=8)).figure.axes
    (image,) = axes.images
    kept = np.asarray(image.get_array())
    assert kept.shape == (2, COLUMNS)
    moments = (np.arange(COLUMNS) + 0.5) * AFTER * 1.25 / COLUMNS
    for moment, (a, b) in zip(moments, kept.T, strict=True):
        if moment < 0.5:
            assert (a, b) == (100, 100)
        elif moment < 1.0:
            assert (a, b) == (75, 100)
        elif moment < 1.25:
            assert (a, b) == (50, 100)
        else:  # the channels were chosen there, though the epoch ended later
            assert (a, b) == (62.5, 25)
    assert image.get_clim() == (0, 100)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"]
    (beside,) = axes.child_axes
    assert [tick.get_text() for tick in beside.get_yticklabels()] == ["5 of 8", "2 of 8"]
    assert any(set(line.get_xdata()) == {1.25} for line in axes.get_lines())


def test_a_point_at_the_moment_itself_counts_and_the_last_of_two_wins():
    learning = searched({"a": 6}, {"a": 4}, end=1.0, after={"a": 5})
    at = widths_at(learning, {"a": 8}, np.asarray([0.0, 0.5, 1.0]))
    assert at["a"].tolist() == [8, 6, 5]


def test_the_text_of_widths_tells_them_quarter_by_quarter():
    learning = searched({"a": 6}, {"a": 4}, end=1.0, after={"a": 5})
    text = widths_picture(made(learning, width=8)).description
    assert "a: 8, 8, 6, 6, 5" in text


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("count", [10, 60, 300])
def test_many_groups_stay_readable(count, narrow):
    names = tuple(f"layer{at // 60}.{at // 2 % 30}.conv{at % 2}" for at in range(count))
    learning = fake_verbs.learning_report(groups=names)
    figure = widths_picture(made(learning), narrow=narrow).figure
    (axes,) = figure.axes
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(labels) == np.asarray(axes.images[0].get_array()).shape[0]
    assert len(labels) <= MOST[narrow]
    assert count > MOST[narrow] or len(labels) == count
    figure.draw_without_rendering()
    boxes = sorted(
        (text.get_window_extent() for text in axes.get_yticklabels()), key=lambda box: box.y0
    )
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    if count == 300:
        assert "groups)" in labels[0]


def test_groups_that_share_a_strip_are_added_up():
    names = tuple(f"block{at // 4}.{at % 4}.conv" for at in range(300))
    learning = fake_verbs.learning_report(groups=names)
    (axes,) = widths_picture(made(learning)).figure.axes
    last = np.asarray(axes.images[0].get_array())[:, -1]
    assert len(last) <= MOST[False]
    kept = sum(learning.course[-1].widths.values())
    assert np.mean(last) == pytest.approx(100 * kept / (64 * 300), rel=0.01)
