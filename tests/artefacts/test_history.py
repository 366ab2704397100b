"""The way of a network: every verb writes what it did; what a stranger wrote is not believed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from prunecli import verbs
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.artefacts.history import history_of
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.checkpoint import Checkpoint, save
from prunecli.exporting import read_metadata
from prunecli.options import ExportOptions, FinetuneOptions, PruneOptions
from prunecli.pictures.runs import run_picture, stages_of
from prunecli.report import AccuracyChange, CutCost, RunStep
from tests.support.samples import VGG


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    folder = tmp_path_factory.mktemp("road")
    cut = verbs.prune(
        VGG,
        output=folder / "cut.pt",
        budget=make_budget(flops="0.5"),
        options=PruneOptions(signal="l2", repair=("bias",), limit=100),
        data="digits",
        command="prunecli prune vgg --flops 0.5",
    )
    tuned = verbs.finetune(
        folder / "cut.pt",
        data="digits",
        output=folder / "tuned.pt",
        teacher=VGG,
        options=FinetuneOptions(epochs=2, limit=300),
        command="prunecli finetune cut.pt",
    )
    exported = verbs.export(
        folder / "tuned.pt",
        output=folder / "net.onnx",
        options=ExportOptions(benchmark=False),
        command="prunecli export tuned.pt",
    )
    return folder, cut, tuned, exported


def test_every_step_tells_what_its_own_report_said(road):
    _, cut, tuned, exported = road
    first, second, third = exported.history
    assert [step.verb for step in exported.history] == ["prune", "finetune", "export"]
    assert first.cost == cut.cost
    assert first.verified == cut.verified
    assert first.budget == {"flops": {"fraction": 0.5}}
    assert first.chosen == "l2, uniform, bias"
    assert first.accuracy == AccuracyChange(
        cut.repair.steps[0].accuracy, cut.repair.steps[-1].accuracy, "held_out"
    )
    assert (first.input, first.command) == (VGG.name, "prunecli prune vgg --flops 0.5")
    assert second.accuracy == tuned.accuracy
    assert (second.epochs, second.best_epoch) == (2, tuned.best_epoch)
    assert second.teacher == tuned.teacher
    assert third == RunStep("export", "prunecli export tuned.pt", "tuned.pt")
    assert tuned.history == exported.history[:2]


def test_the_teacher_is_scored_on_the_images_of_the_result(road):
    _, _, tuned, _ = road
    alone = verbs.evaluate(VGG, data="digits", split=tuned.accuracy.split)
    assert tuned.teacher == alone.accuracy


def test_the_file_of_every_verb_holds_the_way_up_to_it(road):
    folder, _, _, exported = road
    assert history_of(read(folder / "cut.pt").checkpoint) == exported.history[:1]
    assert history_of(read(folder / "tuned.pt").checkpoint) == exported.history[:2]
    told = json.loads(read_metadata(folder / "net.onnx").provenance["provenance"])
    made, *steps = told["history"]
    assert "verb" not in made  # by the script that trained the dense network
    assert [step["verb"] for step in steps] == ["prune", "finetune", "export"]
    assert [len(step["sha256"]) for step in steps] == [64] * 3


def test_what_made_the_dense_network_is_no_part_of_the_way(road):
    stored = read(VGG).checkpoint
    assert stored.metadata["history"]
    assert history_of(stored) == ()
    known = {"verb": "prune", "command": "prunecli prune a"}
    (first, second) = history_of(checkpoint([{"command": "x"}, known, {"command": "y"}]))
    assert (first.verb, second.verb) == ("prune", "")


def test_stages_tell_the_accuracy_that_each_step_started_from(road):
    _, cut, tuned, exported = road
    dense, slim, good, last = stages_of(exported.history)
    assert (dense.name, dense.kept, dense.accuracy) == ("original", 1.0, tuned.teacher)
    assert (slim.name, slim.kept, slim.accuracy) == (
        "pruned", cut.cost.kept["flops"], tuned.accuracy.before
    )  # fmt: skip
    assert (good.name, good.kept, good.accuracy) == ("fine-tuned", slim.kept, tuned.accuracy.after)
    assert (last.name, last.accuracy) == ("exported", good.accuracy)
    heights = [bar.get_height() for bars in run_picture(exported.history).figure.axes[0].containers
               for bar in bars]  # fmt: skip
    known = [100 * stage.kept for stage in (dense, slim, good, last)]
    assert heights == pytest.approx(
        [*known, *(100 * stage.accuracy for stage in (dense, slim, good, last))]
    )


def test_two_cuts_multiply_and_zeros_keep_the_flops():
    half = CutCost(before=None, after=None, kept={"flops": 0.5, "params": 0.6})
    whole = CutCost(before=None, after=None, kept={"flops": 1.0, "params": 0.1})
    steps = [
        RunStep("prune", "", "", cost=half),
        RunStep("prune", "", "", cost=half),
        RunStep("finetune", "", ""),
        RunStep("prune", "", "", cost=whole, sparsity=0.9),
    ]
    assert [stage.kept for stage in stages_of(steps)] == [1.0, 0.5, 0.25, 0.25, 0.25]
    unknown = [RunStep("prune", "", ""), RunStep("finetune", "", "")]
    assert [stage.kept for stage in stages_of(unknown)] == [1.0, None, None]
    assert stages_of([RunStep("", "prunecli magic", "")])[1].name == "changed"


def test_the_same_command_writes_the_same_history(tmp_path):
    written = []
    for name in ("one.pt", "two.pt"):
        verbs.prune(
            VGG, output=tmp_path / name, budget=make_budget(flops="0.5"), command="prunecli prune"
        )
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def checkpoint(history: Any, **facts: Any) -> Checkpoint:
    return Checkpoint(
        architecture=ArchitectureRef("graph"),
        tensors={"weight": torch.zeros(2)},
        input=InputSpec(1, 4, 4, (0.0,), (1.0,)),
        metadata={"history": history, **facts},
    )


def test_files_of_older_versions_tell_what_their_plan_and_accuracy_do(road, tmp_path):
    folder, cut, tuned, _ = road
    stored = read(folder / "tuned.pt").checkpoint
    brief = [
        {name: step[name] for name in ("command", "input", "sha256", "seed") if name in step}
        for step in stored.metadata["history"]
    ]
    old = dataclasses.replace(stored, metadata={**stored.metadata, "history": brief})
    save(old, tmp_path / "old.pt")
    first, second = history_of(read(tmp_path / "old.pt").checkpoint)
    assert (first.verb, second.verb) == ("prune", "finetune")
    assert first.cost.before == cut.cost.before
    assert first.cost.kept["flops"] == pytest.approx(cut.cost.kept["flops"])
    assert first.chosen == "l2, uniform"
    assert first.verified is None
    assert second.accuracy == tuned.accuracy


HOSTILE = [
    None, 7, "text", {}, [None, 3, "text", []], [{}], [{"verb": "<script>", "command": 5}],
    [{"command": "prunecli 'unclosed"}],
    [{"verb": "prune", "cost": {"before": {"flops": "many"}, "after": []}, "budget": [1],
      "verified": {"method": 1, "max_rel_error": "no"}, "accuracy": {"before": "x", "after": 1},
      "epochs": True, "teacher": float("nan"), "sparsity": [], "chosen": {}}],
    [{"verb": "prune", "cost": {"before": None, "after": None}, "budget": {"flops": 3}}],
    [{"verb": "finetune", "accuracy": {"before": float("inf"), "after": 1}, "best_epoch": 1.5}],
]  # fmt: skip


@pytest.mark.parametrize("history", HOSTILE)
def test_what_a_stranger_wrote_is_left_out_and_never_a_traceback(history):
    steps = history_of(checkpoint(history, accuracy="high"))
    for step in steps:
        assert step.verb in {"", "prune", "finetune", "export"}
        assert step.cost is None
        assert step.accuracy is None
        assert step.verified is None
        assert step.teacher is None
    stages_of(steps)
    if steps:
        run_picture(steps)


def test_a_history_without_an_end_is_read_in_part():
    steps = history_of(checkpoint([{"command": "x" * 10**6, "verb": "prune"}] * 10_000))
    assert len(steps) == 200
    assert len(steps[0].command) == 2000
