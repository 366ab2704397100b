"""A sweep: every row is the cut that `prune` makes; points out of reach are rows."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

import prunecli
from prunecli import verbs
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget, parse_sweep
from prunecli.data import load_split, open_source
from prunecli.errors import InputError
from prunecli.evaluation.batches import Images
from prunecli.network.traced import read_network
from prunecli.options import LoadOptions, PruneOptions
from prunecli.pruning.sweep import _suggested, sweep_network, sweep_signals
from prunecli.pruning.trial import calibrated_score
from prunecli.report import Score, Trial
from prunecli.verbs.images import normalised
from prunecli.verbs.sweep import columns
from tests.support.samples import VGG, images, sample

OPTIONS = PruneOptions(limit=200, align=1)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    report = verbs.sweep(
        VGG,
        sweep=parse_sweep("flops=0.5:0.9:0.4"),
        signals=["l2", "taylor"],
        allocations=["uniform", "greedy"],
        options=OPTIONS,
        data="digits",
        table=folder / "table.csv",
        plots=folder / "pictures",
    )
    return report, folder


def test_every_row_is_the_cut_that_prune_makes(swept, tmp_path):
    report, _ = swept
    checkpoint = read(VGG, LoadOptions()).checkpoint
    held_out = load_split(open_source("digits"), "held_out", input=checkpoint.input, limit=200)
    for trial in report.trials[::3]:
        written = tmp_path / "slim.pt"
        single = verbs.prune(
            VGG,
            output=written,
            budget=make_budget(flops=trial.budget["flops"]["fraction"]),
            options=dataclasses.replace(OPTIONS, signal=trial.signal, allocation=trial.allocation),
            data="digits",
            overwrite=True,
        )
        score = calibrated_score(
            prunecli.load(written), lambda: normalised(held_out, checkpoint.input)
        )
        assert trial.kept == pytest.approx(single.cost.kept)
        assert trial.score.loss == pytest.approx(score.loss, rel=1e-4)
        assert trial.score.accuracy == score.accuracy


def test_a_sweep_has_random_channels_at_every_point_and_under_every_allocation(swept):
    report, _ = swept
    found = [
        (trial.budget["flops"]["fraction"], trial.allocation, trial.signal)
        for trial in report.trials
    ]
    assert found == [
        (keep, allocation, signal)
        for keep in (0.9, 0.5)
        for allocation in ("uniform", "greedy")
        for signal in ("l2", "taylor", "random")
    ]


def test_the_table_holds_what_the_report_holds(swept):
    report, folder = swept
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns()
    assert [row["signal"] for row in rows] == [
        "dense",
        *(trial.signal for trial in report.trials),
    ]
    for row, trial in zip(rows[1:], report.trials, strict=True):
        assert float(row["loss"]) == trial.score.loss
        assert float(row["kept_params"]) == pytest.approx(trial.kept["params"], abs=1e-6)
    assert {path.name for path in report.pictures} == {"sweep.svg", "sweep.png"}
    assert all(path.stat().st_size for path in report.pictures)


def test_a_point_out_of_reach_is_a_row_with_the_lowest_reachable(tmp_path):
    report = verbs.sweep(
        VGG,
        sweep=parse_sweep("flops=0.02:0.5:0.48"),
        signals=["l1"],
        allocations=["uniform"],
        options=dataclasses.replace(OPTIONS, min_width=8),
        data="digits",
        table=tmp_path / "table.json",
    )
    able, missed = report.trials[:2], report.trials[2:]
    assert all(trial.score is not None for trial in able)
    assert all("the lowest reachable is" in trial.problem for trial in missed)
    assert any("2 of 4 cuts could not be made" in warning for warning in report.warnings)
    written = json.loads((tmp_path / "table.json").read_text())
    assert written["trials"][2]["score"] is None
    assert written["trials"][0]["score"]["loss"] == report.trials[0].score.loss


def test_the_score_after_the_repair_stands_beside_that_of_the_cut():
    network = read_network(sample("digits_resnet"), [images()()[0][0][:2]])
    report = sweep_network(
        network,
        parse_sweep("params=0.5:0.5:0.1"),
        signals=["l1"],
        allocations=["uniform"],
        options=dataclasses.replace(OPTIONS, repair=("bn",)),
        images=Images(images(96), images(40)),
    )
    assert report.kind == "params"
    assert report.repair == ("bn",)
    for trial in report.trials:
        assert trial.repaired.images == trial.score.images == 40
        assert trial.repaired.loss != trial.score.loss
    assert report.dense.repaired is None


def test_the_same_from_python_on_any_module():
    batches = images(40)
    report = prunecli.sweep(
        sample("digits_vgg"),
        batches()[0][0][:2],
        "flops=0.5:0.5:0.1",
        signals=["l2"],
        batches=batches,
        options=OPTIONS,
    )
    assert [trial.signal for trial in report.trials] == ["l2", "random"]
    assert report.architecture == "DigitsVgg"
    assert report.measured == "calibration"
    assert any("for want of others" in warning for warning in report.warnings)


def test_auto_in_a_sweep_stands_for_all_candidates():
    assert sweep_signals(["auto"], PruneOptions(candidates=("l1", "taylor"))) == (
        "l1", "taylor", "random",
    )  # fmt: skip
    assert sweep_signals(["random", "l2", "l2"], PruneOptions()) == ("l2", "random")
    assert len(sweep_signals(["auto"], PruneOptions())) > 5


@pytest.mark.parametrize(
    ("text", "kind", "fractions"),
    [
        ("flops=0.3:0.9:0.1", "flops", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]),
        ("params=0.9:0.3:0.3", "params", [0.9, 0.6, 0.3]),
        ("sparsity=0.1:0.5:0.2", "channels", [0.9, 0.7, 0.5]),
        ("bytes=0.5:0.5:0.1", "bytes", [0.5]),
        ("flops=0.25:0.6:0.25", "flops", [0.5, 0.25]),
    ],
)
def test_a_sweep_is_read_as_it_is_meant(text, kind, fractions):
    sweep = parse_sweep(text)
    assert sweep.kind == kind
    found = [budget.limits[0].fraction for budget in sweep.budgets]
    assert found == pytest.approx(fractions, abs=1e-12)


def scored(keep: float, accuracy: float, signal: str = "l1") -> Trial:
    return Trial(signal, "uniform", 0, {}, {"flops": keep}, Score(1.0, accuracy, 1.0, 9))


def test_the_cheapest_cut_within_a_point_of_the_dense_network_is_suggested():
    dense = scored(1.0, 0.9)
    rows = [scored(0.9, 0.95), scored(0.7, 0.891), scored(0.5, 0.88), scored(0.3, 0.9, "random")]
    assert _suggested(dense, rows, "flops") is rows[1]
    assert _suggested(dense, rows[2:], "flops") is rows[2]
    assert _suggested(dense, rows[3:], "flops") is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"data": None}, "SWEEP_NEEDS_DATA"),
        ({"table": Path("table.pt")}, "UNWRITABLE_OUTPUT"),
        ({"table": Path("no-such-folder/table.csv")}, "UNWRITABLE_OUTPUT"),
        ({"table": VGG}, "UNWRITABLE_OUTPUT"),
        ({"plots": VGG}, "UNWRITABLE_OUTPUT"),
        ({"signals": ["no-such"]}, "UNKNOWN_SIGNAL"),
        ({"allocations": ["no-such"]}, "UNKNOWN_ALLOCATION"),
    ],
)
def test_a_sweep_that_cannot_be_made_is_refused(change, code):
    words = {
        "sweep": parse_sweep("flops=0.5:0.5:0.1"),
        "signals": ["l1"],
        "allocations": ["uniform"],
        "options": OPTIONS,
        "data": "digits",
    }
    with pytest.raises(InputError) as caught:
        verbs.sweep(VGG, **{**words, **change})
    assert caught.value.code == code
    assert caught.value.hint


def test_data_of_other_classes_is_refused_before_the_sweep(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for at in range(12):
                Image.new("L", (8, 8), at).save(folder / f"{at}.png")
    with pytest.raises(InputError) as caught:
        verbs.sweep(
            VGG,
            sweep=parse_sweep("flops=0.5:0.5:0.1"),
            signals=["l1"],
            allocations=["uniform"],
            data=str(tmp_path),
        )
    assert caught.value.code == "CLASS_COUNT_MISMATCH"


def test_a_table_or_picture_that_exists_is_kept(tmp_path):
    words = {
        "sweep": parse_sweep("flops=0.5:0.5:0.1"),
        "signals": ["l1"],
        "allocations": ["uniform"],
        "options": OPTIONS,
        "data": "digits",
    }
    (tmp_path / "table.csv").write_text("mine")
    (tmp_path / "sweep.svg").write_text("mine")
    for change in ({"table": tmp_path / "table.csv"}, {"plots": tmp_path}):
        with pytest.raises(InputError) as caught:
            verbs.sweep(VGG, **words, **change)
        assert caught.value.code == "OUTPUT_EXISTS"
    assert (tmp_path / "table.csv").read_text() == "mine"
