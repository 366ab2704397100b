"""Pictures of layers, trainings, timings and runs: what is drawn is what the reports hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.text import Text

from prunecli import report
from prunecli.pictures import (
    benchmark_picture,
    candidates_picture,
    course_picture,
    kept_picture,
    latency_picture,
    layers_picture,
    oracle_picture,
    removals_picture,
    run_picture,
    sensitivity_picture,
    sweep_picture,
    training_picture,
    weights_picture,
    widths_picture,
)
from prunecli.pictures.layers import FREE, FROZEN
from prunecli.pictures.of_reports import pictures_of
from prunecli.pictures.rows import MOST_ROWS, rows_of
from prunecli.pictures.style import NARROW
from prunecli.preflight.outputs import PICTURES
from tests.support import fake_verbs


def layer(name: str, **facts) -> report.LayerAnalysis:
    found = {"channels": 8, "free": 8, "flops": 10.0, "params": 5.0, "saliency": 2.0, **facts}
    return report.LayerAnalysis(name, "conv2d", **found)


def model(*layers: report.LayerAnalysis) -> report.ModelAnalysis:
    cost = report.Cost(flops=100.0, params=50.0, activations=1.0, bytes=1.0, channels=1.0)
    found = fake_verbs.analyze_report(model=True, dataset=False).model
    return dataclasses.replace(found, cost=cost, layers=layers)


def lengths(axes, at: int = -1) -> list[float]:
    return [bar.get_width() for bar in axes.containers[at]]


def test_every_layer_is_a_bar_of_what_it_costs_and_frozen_ones_differ():
    made = model(layer("a", saliency=4.0), layer("b", free=0, flops=40.0, saliency=None))
    flops, params, saliency = layers_picture(made).figure.axes
    assert lengths(flops) == [10.0, 40.0]
    assert lengths(params) == [10.0, 10.0]
    assert lengths(saliency) == [4.0, 0.0]
    assert [to_hex(bar.get_facecolor()) for bar in flops.containers[0]] == [
        FREE.lower(), FROZEN.lower()
    ]  # fmt: skip
    assert [tick.get_text() for tick in flops.get_yticklabels()] == ["a", "b"]
    assert "Most FLOPs: b 40.0%, a 10.0%" in layers_picture(made).description
    assert "Frozen layers, 1 in all: b." in layers_picture(made).description


def test_saliencies_far_apart_are_drawn_on_a_logarithmic_axis():
    made = model(layer("a", saliency=1e-3), layer("b", saliency=1e3))
    assert layers_picture(made).figure.axes[2].get_xscale() == "log"
    assert layers_picture(made).figure.axes[0].get_xscale() == "linear"


def test_layers_that_share_a_row_are_added_up():
    layers = [layer(f"block{at // 4}.{at % 4}.conv", saliency=float(at)) for at in range(300)]
    flops, _, saliency = layers_picture(model(*layers)).figure.axes
    assert len(lengths(flops)) <= MOST_ROWS
    assert sum(lengths(flops)) == pytest.approx(300 * 10)
    assert np.mean(lengths(saliency)) == pytest.approx(149.5, rel=0.01)


names = st.lists(
    st.lists(st.sampled_from(["a", "b", "0", "1", "2", "conv"]), min_size=1, max_size=5).map(
        ".".join
    ),
    min_size=1,
    max_size=300,
)


@settings(max_examples=60, deadline=None)
@given(names, st.integers(3, 70))
def test_rows_cover_every_layer_once_and_in_order(found, most):
    rows = rows_of(found, most=most)
    covered = [at for row in rows for at in range(len(found))[row.at]]
    assert covered == list(range(len(found)))
    assert len(rows) <= most
    assert all(row.count >= 1 and row.label for row in rows)


def test_rows_of_many_layers_keep_to_the_blocks_of_the_network():
    found = [f"layer{stage}.{block}.conv{at}" for stage in (1, 2) for block in range(30)
             for at in (1, 2, 3)]  # fmt: skip
    rows = rows_of(found)
    assert [row.label for row in rows[:2]] == ["layer1.0 (3 layers)", "layer1.1 (3 layers)"]
    assert len(rows) == 60
    deep = [f"features.block{b}.layer{at}.conv" for b in (1, 2) for at in range(1, 101)]
    labels = [row.label for row in rows_of(deep)]
    assert labels[0] == "block1.layer1 .. layer4 (4 layers)"
    assert labels[25] == "block2.layer1 .. layer4 (4 layers)"


def test_what_is_kept_is_drawn_before_the_original():
    cut = report.LayerCut("a", "conv2d", 8, 6, 20.0, 5.0, 9.0, 4.0)
    whole = report.LayerCut("b", "linear", 4, 4, 20.0, 15.0, 9.0, 8.0, "output of the model")
    cost = report.CutCost(report.Cost(fake_verbs.COST, flops=40.0), fake_verbs.HALF, {"flops": 0.5})
    made = dataclasses.replace(fake_verbs.prune_report(None), layers=(cut, whole), cost=cost)
    channels, flops = kept_picture(made).figure.axes
    assert lengths(channels) == [75.0, 100.0]
    assert lengths(channels, 0) == [100.0, 100.0]
    assert lengths(flops) == [12.5, 37.5]
    assert lengths(flops, 0) == [50.0, 50.0]
    assert "a: 6 of 8; b: 4 of 4" in kept_picture(made).description


def test_weights_that_are_kept_are_drawn_before_all_of_them():
    zeros = report.SparsityReport(
        "weight", "", 10**7, 10**6, 0.9,
        (report.LayerSparsity("a.weight", (2, 5), 10**7, 10**6),),
    )  # fmt: skip
    share, millions = weights_picture(zeros, "net").figure.axes
    assert lengths(share) == [10.0]
    assert (lengths(millions), lengths(millions, 0)) == ([1.0], [10.0])


def test_a_training_shows_every_epoch_the_best_and_the_teacher():
    epochs = tuple(
        report.EpochReport(at, 1 / at, 0.5 + at / 10, 2 / at, 0.1 / at, 100.0, 1.0)
        for at in (1, 2, 3)
    )
    made = dataclasses.replace(
        fake_verbs.finetune_report(Path("x.pt")),
        epochs=epochs,
        best_epoch=2,
        held_out=report.AccuracyChange(0.51, 0.7, "held_out"),
        teacher=0.95,
    )
    accuracy, loss, rate = training_picture(made).figure.axes
    held_out, best, teacher = accuracy.get_lines()
    np.testing.assert_allclose(held_out.get_xdata(), [0, 1, 2, 3])
    np.testing.assert_allclose(held_out.get_ydata(), [51, 60, 70, 80])
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 70)
    np.testing.assert_allclose(teacher.get_ydata(), 95)
    np.testing.assert_allclose(loss.get_lines()[0].get_ydata(), [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(rate.get_lines()[0].get_ydata(), [0.1, 0.05, 0.1 / 3])
    alone = dataclasses.replace(made, teacher=None)
    assert len(training_picture(alone).figure.axes[0].get_lines()) == 2


def test_removals_show_what_is_left_and_the_accuracy():
    left, right = removals_picture(fake_verbs.iterative_report(dry_run=False)).figure.axes
    assert left.get_lines()[0].get_ydata()[-1] == pytest.approx(50)
    assert {line.get_label() for line in right.get_lines()} == {
        "held out", "original model", "result"
    }  # fmt: skip


def test_milliseconds_are_those_of_one_batch_and_speed_ups_have_their_interval():
    (row,) = fake_verbs.export_report(Path("x.onnx")).benchmark
    alone = dataclasses.replace(row, dense_ms=None, speedup=None, flops_ratio=None)
    left, right = benchmark_picture([row, alone]).figure.axes
    assert "per batch" in left.get_title(loc="left")
    assert [lengths(left, at)[0] for at in range(3)] == pytest.approx([12.3, 7.6, 7.6])
    assert lengths(right, 0) == [1.62]
    intervals = [list(line.get_xdata()) for line in right.get_lines()]
    assert [1.58, 1.66] in intervals
    assert [2.02] in intervals
    assert [text.get_text() for text in right.texts] == ["no model to compare with"]
    benchmark_picture([alone])


def test_a_latency_is_drawn_as_asked_predicted_and_measured():
    (axes,) = latency_picture(fake_verbs.latency_report(met=False)).figure.axes
    assert [lengths(axes, at)[0] for at in range(3)] == pytest.approx([70.0, 69.5, 78.0])
    unmeasured = dataclasses.replace(
        fake_verbs.latency_report(met=True), measured=None, measured_kept=None,
        measured_interval=None, asked=None,
    )  # fmt: skip
    assert len(latency_picture(unmeasured).figure.axes[0].containers) == 1


def test_signals_that_were_tried_stand_best_first():
    tried = (
        dataclasses.replace(
            fake_verbs.trial("l1", 0.5, 0.4), score=report.Score(2.0, 0.4, 1.9, 143)
        ),
        dataclasses.replace(
            fake_verbs.trial("taylor", 0.5, 0.6), score=report.Score(2.0, 0.6, 1.2, 143)
        ),
        fake_verbs.trial("random", 0.5, None, problem="no"),
    )
    search = dataclasses.replace(fake_verbs.SEARCH, trials=tried)
    left, right = candidates_picture(search).figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["taylor", "l1", "random"]
    assert lengths(left) == [1.2, 1.9, 0.0]
    assert lengths(right) == [60.0, 40.0, 0.0]


def test_words_of_pictures_for_a_phone_stay_inside_them_and_panels_are_stacked():
    analyzed = fake_verbs.analyze_report(model=True, dataset=False).model
    layers = tuple(layer(f"features.denseblock{at}.conv") for at in range(40))
    sensitive = dataclasses.replace(
        analyzed.groups[0], sensitivity=({"cut": 0.5, "loss": 1.0, "accuracy": 0.5},)
    )
    made = dataclasses.replace(
        fake_verbs.prune_report(None),
        layers=(report.LayerCut("a", "conv2d", 8, 6, 20.0, 5.0, 9.0, 4.0),),
        learning=fake_verbs.learning_report(
            groups=tuple(f"features.denseblock{at}.denselayer{at}.conv1" for at in range(40))
        ),
    )
    trained = dataclasses.replace(made, learning=fake_verbs.trained_report())
    zeros = report.SparsityReport(
        "weight", "", 10, 5, 0.5, (report.LayerSparsity("a.weight", (2, 5), 10, 5),)
    )
    (row,) = fake_verbs.export_report(Path("x.onnx")).benchmark
    drawn = [
        layers_picture(model(*layers), narrow=True),
        oracle_picture(analyzed, narrow=True),
        sensitivity_picture(dataclasses.replace(analyzed, groups=(sensitive,)), narrow=True),
        kept_picture(made, narrow=True),
        weights_picture(zeros, "net", narrow=True),
        candidates_picture(fake_verbs.SEARCH, narrow=True),
        sweep_picture(fake_verbs.sweep_report(), narrow=True),
        training_picture(fake_verbs.finetune_report(Path("x.pt")), narrow=True),
        removals_picture(fake_verbs.iterative_report(dry_run=False), narrow=True),
        course_picture(made, narrow=True),
        course_picture(trained, narrow=True),
        widths_picture(made, narrow=True),
        benchmark_picture([row], narrow=True),
        latency_picture(fake_verbs.latency_report(met=True), narrow=True),
        run_picture([report.RunStep("prune", "", "")], narrow=True),
    ]
    for picture in drawn:
        figure = picture.figure
        figure.draw_without_rendering()
        assert figure.get_size_inches()[0] == NARROW
        lefts = [axes.get_subplotspec().colspan.start for axes in figure.axes]
        assert lefts == [0] * len(lefts)
        # Numbers of an axis exist beyond its ends too, where they are not drawn.
        numbers = {id(text) for axes in figure.axes for text in axes.get_xticklabels()}
        words = [text for text in figure.findobj(Text) if text.get_text()]
        for text in (text for text in words if id(text) not in numbers):
            box = text.get_window_extent()
            assert -1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, (picture.title, text.get_text())


def test_every_report_draws_only_what_its_verb_may_draw():
    made = dataclasses.replace(
        fake_verbs.prune_report(None, latency=fake_verbs.latency_report(met=True)),
        layers=(report.LayerCut("a", "conv2d", 8, 6, 20.0, 5.0, 9.0, 4.0),),
        candidates=fake_verbs.SEARCH,
        iterative=fake_verbs.iterative_report(dry_run=False),
        learning=fake_verbs.learning_report(),
    )
    steps = (report.RunStep("prune", "", ""), report.RunStep("export", "", ""))
    tuned = dataclasses.replace(fake_verbs.finetune_report(Path("x.pt")), history=steps)
    exported = dataclasses.replace(fake_verbs.export_report(Path("x.onnx")), history=steps)
    for verb, each in (
        ("prune", made), ("sweep", fake_verbs.sweep_report()), ("finetune", tuned),
        ("export", exported),
    ):  # fmt: skip
        assert set(pictures_of(each)) <= set(PICTURES[verb])
    assert set(pictures_of(made)) == set(PICTURES["prune"])


def test_a_run_of_which_nothing_is_known_is_still_drawn():
    (axes,) = run_picture([report.RunStep("", "", "")]).figure.axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["original", "changed"]
