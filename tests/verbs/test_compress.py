"""`compress` on files: the whole road, stopped and gone on, and wishes that cannot be met."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import prunecli
from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.errors import InputError
from prunecli.options import CompressOptions, FinetuneOptions, WishOptions
from tests.support.image_folders import write_three_digits

MODEL = Path(__file__).parents[2] / "sample_models" / "digits_vgg.safetensors"
QUICK = CompressOptions(epochs=1, limit=200, threads=1)
SEARCH = dataclasses.replace(QUICK, trial_epochs=0, trials=2)


def compress(folder: Path, wishes: WishOptions, **more):
    settings = {"data": "digits", "options": QUICK, "output": folder / "small.pt"}
    return verbs.compress(MODEL, wishes=wishes, **{**settings, **more})


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    folder = tmp_path_factory.mktemp("met")
    told: list[str] = []
    report = compress(folder, WishOptions(flops="0.6"), page=folder / "page.html", tell=told.append)
    return report, told


def test_a_wish_for_flops_is_met_as_an_independent_count_says(met):
    report, _ = met
    slim = prunecli.load(report.output)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        slim(torch.zeros(1, 1, 8, 8))
    products = counted.get_total_flops() / 2  # torch counts a multiply-add twice, and no batch norm
    assert products <= report.after.flops <= 1.03 * products
    assert report.after.flops <= 0.6 * report.before.flops
    assert [(wish.wish, wish.ok) for wish in report.met] == [("flops", True)]
    assert sum(value.numel() for value in slim.parameters()) == report.after.params
    assert report.after.bytes == report.output.stat().st_size


def test_the_onnx_file_does_what_the_written_model_does(met):
    report, _ = met
    slim = prunecli.load(report.output)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(report.onnx, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, slim(x).numpy(), rtol=1e-4, atol=1e-4)


def test_accuracy_is_told_on_images_that_did_not_choose(met):
    report, _ = met
    both = verbs.evaluate(report.output, data="digits", split="test")
    (attempt,) = report.tried
    chosen, told = (
        next(int(word) for word in text.split() if word.isdigit())
        for text in (report.chosen_on, report.reported_on)
    )
    assert chosen + told == both.count
    right = attempt.accuracy * chosen + report.after.accuracy * told
    assert right == pytest.approx(both.accuracy * both.count, abs=1e-6)


def test_the_plan_comes_first_and_the_page_holds_the_figures(met):
    report, told = met
    assert told[0].startswith("plan: ")
    page = report.page.read_text()
    assert "Wishes" in page
    assert report.commands[0] in page.replace("&#x27;", "'")


def test_the_model_that_is_written_finds_its_original_again(met):
    report, _ = met
    tuned = verbs.finetune(
        report.output,
        data="digits",
        output=report.output.with_name("again.pt"),
        options=FinetuneOptions(epochs=1, limit=64),
    )
    assert tuned.taught_by is not None
    assert tuned.taught_by.file.name == MODEL.name


def test_a_search_that_is_stopped_goes_on_and_repeats_nothing(tmp_path):
    class StoppedError(Exception):
        pass

    def stop(text: str) -> None:
        if text.startswith("tried"):
            raise StoppedError

    wishes = WishOptions(max_drop=0.2)
    with pytest.raises(StoppedError):
        compress(tmp_path, wishes, options=SEARCH, tell=stop)
    assert not (tmp_path / "small.pt").exists()
    journal = tmp_path / "small.search" / "search.json"
    first = json.loads(journal.read_text())["attempts"]
    with pytest.raises(InputError) as caught:
        compress(tmp_path, wishes, options=SEARCH)
    assert caught.value.code == "UNFINISHED_RUN"
    report = compress(tmp_path, wishes, options=SEARCH, resume=True)
    after = json.loads(journal.read_text())["attempts"]
    assert after[:1] == first
    assert len({one["strength"] for one in after}) == 2
    smallest = min(one.kept["flops"] for one in report.tried if one.ok)
    assert report.after.flops == pytest.approx(smallest * report.before.flops)


def test_a_wish_that_cannot_be_met_ends_with_the_nearest(tmp_path):
    report = compress(tmp_path, WishOptions(flops="0.0001"), data=None, options=CompressOptions())
    assert not report.ok
    assert report.output.exists()
    (wish,) = report.met
    assert wish.got == report.after.flops > wish.asked
    nothing_thinner = verbs.prune(
        MODEL, output=tmp_path / "other.pt",
        budget=make_budget(flops=1.001 * report.after.flops / report.before.flops),
    )  # fmt: skip
    assert nothing_thinner.cost.after.flops <= 1.01 * report.after.flops


def test_training_that_does_not_fit_into_the_time_is_shortened_and_said(tmp_path):
    options = dataclasses.replace(QUICK, epochs=4000, minutes=0.1)
    report = compress(tmp_path, WishOptions(flops="0.6"), options=options)
    (attempt,) = report.tried
    assert attempt.epochs < 4000
    assert f"trained for {attempt.epochs} of 4,000 epochs, for time" in report.choice


def test_what_pruning_and_training_warn_of_is_not_lost(met):
    report, _ = met
    (attempt,) = report.tried
    assert set(attempt.warnings) <= set(report.warnings)


def test_another_model_under_the_same_name_is_another_search(tmp_path):
    model = tmp_path / "model.safetensors"
    shutil.copyfile(MODEL, model)
    settings = {"options": CompressOptions(), "output": tmp_path / "small.pt"}
    verbs.compress(model, wishes=WishOptions(flops="0.6"), **settings)
    shutil.copyfile(MODEL.with_name("digits_resnet.safetensors"), model)
    with pytest.raises(InputError, match="another model"):
        verbs.compress(model, wishes=WishOptions(flops="0.6"), resume=True, **settings)


@pytest.mark.parametrize(
    ("wishes", "options", "data", "code"),
    [
        (WishOptions(), CompressOptions(), "digits", "NO_WISH"),
        (WishOptions(max_drop=0.01), CompressOptions(), None, "OPTION_WITHOUT_EFFECT"),
        (WishOptions(flops="0.5"), CompressOptions(epochs=5), None, "OPTION_WITHOUT_EFFECT"),
        (WishOptions(flops="0.5"), CompressOptions(trials=2), "digits", "OPTION_WITHOUT_EFFECT"),
        (WishOptions(flops="0.5"), CompressOptions(), "/nowhere", "DATA_NOT_FOUND"),
    ],
)
def test_contradictions_are_told_before_any_work(tmp_path, wishes, options, data, code):
    with pytest.raises(InputError) as caught:
        compress(tmp_path, wishes, options=options, data=data)
    assert caught.value.code == code
    assert not list(tmp_path.iterdir())


def test_a_model_of_other_classes_is_given_a_classifier_first(tmp_path, monkeypatch):
    data = write_three_digits(tmp_path / "three", count=400)
    wishes, told = WishOptions(flops="0.6"), []
    with pytest.raises(InputError, match="10 outputs but the data has 3") as caught:
        compress(tmp_path, wishes, data=str(data))
    assert "--new-head" in caught.value.hint
    options = dataclasses.replace(QUICK, epochs=2, new_head=True)
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["prunecli.verbs.compress"], "open_original", stopped)
        with pytest.raises(RuntimeError, match="stopped"):
            compress(tmp_path, wishes, data=str(data), options=options, overwrite=True)
    trained = (tmp_path / "small.search" / "new-head.pt").read_bytes()
    report = compress(
        tmp_path, wishes, data=str(data), options=options, resume=True, tell=told.append
    )
    assert (tmp_path / "small.search" / "new-head.pt").read_bytes() == trained
    assert not any("first train" in line for line in told)
    slim = prunecli.load(report.output)
    assert slim(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert report.before.accuracy > 0.7
    assert report.after.flops <= 0.6 * report.before.flops
    assert [command.split()[1] for command in report.commands] == [
        "finetune", "prune", "finetune", "export",
    ]  # fmt: skip
    assert "--new-head" in report.commands[0]


def stopped(*_):
    raise RuntimeError("stopped")


def test_a_size_in_int8_is_that_of_the_quantised_file(tmp_path):
    dense = prunecli.load(MODEL)
    held = 4 * sum(value.numel() for value in dense.parameters())
    wish = WishOptions(size=f"{held / 6:.0f}B")  # less than INT8 alone would do
    options = dataclasses.replace(QUICK, epochs=0, int8=True)
    report = compress(tmp_path, wish, options=options)
    assert [(one.wish, one.ok) for one in report.met] == [("size", True)]
    assert report.after.bytes == report.onnx.stat().st_size <= held / 6
    assert report.after.bytes > 0.7 * held / 6  # the room is used
    # A float file of that size would hold a sixth of the parameters.
    assert report.after.params > 0.3 * report.before.params
    assert prunecli.info(report.onnx).onnx.precision.name == "INT8"
    assert "--int8" in report.commands[-1]
