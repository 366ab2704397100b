"""Whole training runs: they learn, repeat, resume exactly, and stop safely."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from prunecli import data
from prunecli.data import Arrays, DataSource, StreamedImageSet
from prunecli.errors import InputError, InterruptedRunError, PruneError
from prunecli.evaluation.images import evaluate
from prunecli.options import FinetuneOptions
from prunecli.preflight.training import RANGES
from prunecli.report import to_json
from prunecli.training import OPTIMIZERS, SCHEDULES, finetune
from prunecli.training.loop import epoch_batches
from prunecli.training.state import STATE_FILE
from tests.support.training import (
    FULL,
    GREY,
    PLAIN,
    QUICK,
    StopError,
    make_net,
    make_plain_net,
    same,
    stop_at,
)
from tests.support.two_processes import in_two_processes


@pytest.fixture(scope="module")
def digits() -> DataSource:
    return data.open_source("digits")


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def subset(source: DataSource, indices: list[int]) -> DataSource:
    train = source.splits["train"]
    return dataclasses.replace(
        source, splits={"train": Arrays(train.images[indices], train.labels[indices])}
    )


def test_a_network_learns_the_digits(digits):
    before = make_net()
    original = weights(before)
    options = FinetuneOptions(epochs=4, batch_size=64, lr=0.05)
    result = finetune(before, digits, input=GREY, options=options)
    test = evaluate(result.model, data.load_split(digits, "test", input=GREY), input=GREY)
    assert test.accuracy > 0.93
    assert result.held_out_before.accuracy < 0.3
    assert result.held_out_after.accuracy > 0.93
    assert result.held_out_after.split == "held_out"
    assert all(torch.equal(value, original[name]) for name, value in before.state_dict().items())
    assert before.training
    assert not result.model.training
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3, 4]
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
    assert result.warnings == ()


def test_the_best_epoch_is_given_back(digits):
    options = dataclasses.replace(QUICK, epochs=4, lr=0.3, schedule="constant", momentum=0.0)
    result = finetune(make_net(), digits, input=GREY, options=options)
    best = max(result.epochs, key=lambda epoch: (epoch.accuracy, -epoch.loss))
    assert result.best_epoch == best.epoch
    assert result.held_out_after.accuracy == best.accuracy
    held_out = data.load_split(digits, "held_out", input=GREY, limit=QUICK.limit)
    again = evaluate(result.model, held_out, input=GREY)
    assert again.accuracy == best.accuracy
    assert again.loss == pytest.approx(best.loss, rel=1e-5)


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(digits):
    net = make_net()
    first = finetune(net, digits, input=GREY, options=QUICK)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    second = finetune(net, digits, input=GREY, options=QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first.model, second.model)
    other = finetune(make_net(), digits, input=GREY, options=dataclasses.replace(QUICK, seed=1))
    assert not same(first.model, other.model)


def test_a_teacher_is_imitated(digits):
    learning = FinetuneOptions(epochs=4, batch_size=64, lr=0.05)
    taught = finetune(make_net(), digits, input=GREY, options=learning).model
    options = dataclasses.replace(learning, alpha=1.0, temperature=1.0)
    student = finetune(make_net(1), digits, input=GREY, options=options, teacher=taught)
    alone = finetune(make_net(1), digits, input=GREY, options=options)
    images = data.load_split(digits, "test", input=GREY).images.float()
    pixels = (images / 255 - 0.3) / 0.35
    with torch.no_grad():
        wanted, with_teacher, without = (
            net(pixels).softmax(1) for net in (taught, student.model, alone.model)
        )
    assert (with_teacher - wanted).abs().mean() < (without - wanted).abs().mean()


def test_a_teacher_may_want_another_normalisation(digits):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    seen = []
    teacher[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].mean().item()))
    plain = dataclasses.replace(GREY, mean=(0.0,), std=(1.0,))
    options = dataclasses.replace(QUICK, epochs=1)
    finetune(make_net(), digits, input=GREY, options=options, teacher=teacher)
    finetune(make_net(), digits, input=GREY, options=options, teacher=teacher, teacher_input=plain)
    one, two = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(one) == 6  # one look at zeros, then five steps
    assert two[1:] == pytest.approx([value * 0.35 + 0.3 for value in one[1:]], abs=1e-4)


def test_a_teacher_of_other_classes_is_refused(digits):
    with pytest.raises(InputError, match="teacher has 7 outputs") as caught:
        finetune(make_net(), digits, input=GREY, options=QUICK, teacher=make_net(classes=7))
    assert caught.value.code == "TEACHER_MISMATCH"


class Outputs(NamedTuple):
    logits: torch.Tensor
    aux_logits: torch.Tensor


class WithAuxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = make_net()
        self.side = nn.Linear(64, 10)

    def forward(self, images):
        logits = self.body(images)
        return Outputs(logits, self.side(images.flatten(1))) if self.training else logits


def test_auxiliary_classifiers_are_trained_with_the_network(digits):
    model = WithAuxiliary()
    result = finetune(model, digits, input=GREY, options=dataclasses.replace(QUICK, epochs=1))
    assert not torch.equal(result.model.side.weight, model.side.weight)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_every_optimizer_learns_with_every_schedule(digits, optimizer, schedule):
    options = dataclasses.replace(
        QUICK, optimizer=optimizer, schedule=schedule, epochs=3, limit=None
    )
    result = finetune(make_net(), digits, input=GREY, options=options)
    assert result.held_out_after.accuracy > 0.5


@pytest.mark.parametrize(
    "change",
    [{"ema": 0.9}, {"amp": "bf16"}, {"clip": 0.5}, {"label_smoothing": 0.1}, {"augment": "crop"}],
    ids=lambda change: next(iter(change)),
)
def test_every_option_learns(digits, change):
    options = dataclasses.replace(QUICK, lr=0.05, epochs=3, limit=None, **change)
    result = finetune(make_net(), digits, input=GREY, options=options)
    assert result.held_out_after.accuracy > 0.6
    assert all(value.dtype != torch.bfloat16 for value in result.model.state_dict().values())


def test_the_average_is_what_is_chosen_and_given_back(digits):
    options = dataclasses.replace(QUICK, ema=0.999, lr=0.1)
    averaged = finetune(make_net(), digits, input=GREY, options=options)
    plain = finetune(make_net(), digits, input=GREY, options=dataclasses.replace(options, ema=0.0))
    assert not same(averaged.model, plain.model)
    held_out = data.load_split(digits, "held_out", input=GREY, limit=QUICK.limit)
    again = evaluate(averaged.model, held_out, input=GREY)
    assert again.accuracy == averaged.held_out_after.accuracy


def test_frozen_and_half_precision_networks_are_trained_in_full(digits):
    model = make_net().half().requires_grad_(requires_grad=False)
    result = finetune(model, digits, input=GREY, options=QUICK)
    assert result.model[0].weight.dtype == torch.float32
    assert not torch.equal(result.model[0].weight, model[0].weight.float())


def test_a_frozen_part_stays_as_it_is(digits):
    model = make_net()
    model[0].weight.requires_grad_(requires_grad=False)
    result = finetune(model, digits, input=GREY, options=QUICK)
    assert torch.equal(result.model[0].weight, model[0].weight)
    assert not torch.equal(result.model[3].weight, model[3].weight)


# small data sets


@pytest.mark.parametrize("count", [2, 5, 11, 65, 66])
def test_data_sets_smaller_than_a_batch_or_a_little_larger_work(digits, count):
    source = dataclasses.replace(subset(digits, list(range(count))), classes=tuple("0123456789"))
    labels = source.splits["train"].labels
    labels[: min(count, 10)] = range(min(count, 10))
    if count < 10:
        source = dataclasses.replace(source, classes=tuple(str(i) for i in range(count)))
        labels[:] = range(count)
    options = FinetuneOptions(epochs=1, batch_size=64)
    model = make_net(classes=len(source.classes))
    result = finetune(model, source, input=GREY, options=options)
    assert len(result.epochs) == 1


def test_without_held_out_images_the_training_images_decide_and_that_is_said(digits):
    options = dataclasses.replace(QUICK, held_out=0.0)
    result = finetune(make_net(), digits, input=GREY, options=options)
    assert any("no image is held out" in warning for warning in result.warnings)
    assert result.held_out_after.count == 320
    assert result.held_out_after.split == "train"


def test_a_single_image_is_too_few(digits):
    source = dataclasses.replace(subset(digits, [0]), classes=("0",))
    source.splits["train"].labels[:] = 0
    with pytest.raises(InputError, match="too few images") as caught:
        finetune(make_net(classes=1), source, input=GREY, options=QUICK)
    assert caught.value.code == "TOO_FEW_IMAGES"


def test_a_streamed_data_set_trains_like_one_in_memory(digits, monkeypatch):
    in_memory = finetune(make_net(), digits, input=GREY, options=QUICK)
    load = data.load_split
    monkeypatch.setattr(
        sys.modules["prunecli.training.finetune"],  # the package's name is the function's
        "load_split",
        lambda *args, **kwargs: load(*args, **kwargs, memory_limit=1),
    )
    streamed = finetune(make_net(), digits, input=GREY, options=QUICK)
    assert same(in_memory.model, streamed.model)
    assert any("streamed" in warning for warning in streamed.warnings)


# logs and progress


def test_the_log_holds_a_row_per_epoch_as_jsonl_and_csv(digits, tmp_path):
    result = finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=tmp_path / "run")
    assert result.log == tmp_path / "run" / "log.jsonl"
    rows = [json.loads(line) for line in result.log.read_text().splitlines()]
    assert rows == to_json(result.epochs)
    with (tmp_path / "run" / "log.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in table] == [epoch.loss for epoch in result.epochs]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "log.jsonl",
        "log.csv",
        STATE_FILE,
    }


def test_progress_tells_loss_accuracy_and_speed(digits):
    steps = []
    result = finetune(make_net(), digits, input=GREY, options=QUICK, progress=steps.append)
    training = [step for step in steps if step.stage == "train"]
    assert training[-1].done == training[-1].total == 10
    assert set(training[-1].facts) == {"epoch", "loss", "accuracy", "images/s"}
    assert training[-1].facts["epoch"] == "2/2"
    assert training[-1].facts["loss"] == pytest.approx(result.epochs[-1].train_loss)
    assert {step.stage for step in steps} >= {"train", "evaluate held_out"}


def test_doing_worse_than_before_is_said(digits):
    good = finetune(
        make_net(), digits, input=GREY, options=dataclasses.replace(QUICK, epochs=4)
    ).model
    options = dataclasses.replace(QUICK, epochs=1, lr=3.0, schedule="constant", clip=1.0)
    result = finetune(good, digits, input=GREY, options=options)
    assert any("no epoch was better" in warning for warning in result.warnings)
    assert (result.best_epoch, result.held_out_after) == (0, result.held_out_before)
    assert same(result.model, good)


# stopping and going on


@pytest.fixture(scope="module")
def straight(digits):
    return finetune(make_net(), digits, input=GREY, options=FULL, teacher=make_net(7))


@pytest.fixture
def every_step(monkeypatch):
    """Report after every step."""
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
@pytest.mark.parametrize("done", [1, 5, 8, 15])
def test_a_stopped_run_ends_like_one_that_never_stopped(digits, straight, tmp_path, error, done):
    arguments = {"input": GREY, "options": FULL, "teacher": make_net(7), "run_dir": tmp_path}
    with pytest.raises((StopError, InterruptedRunError)):
        finetune(make_net(), digits, progress=stop_at(done, error), **arguments)
    resumed = finetune(make_net(), digits, resume=True, **arguments)
    assert same(resumed.model, straight.model)
    assert resumed.best_epoch == straight.best_epoch
    pairs = zip(resumed.epochs, straight.epochs, strict=True)
    for one, two in pairs:
        assert (one.epoch, one.accuracy, one.loss) == (two.epoch, two.accuracy, two.loss)
        assert one.train_loss == pytest.approx(two.train_loss, rel=1e-5)
    assert resumed.held_out_before == straight.held_out_before


@pytest.mark.usefixtures("every_step")
def test_a_run_saves_within_an_epoch_when_it_is_time(digits, straight, tmp_path):
    arguments = {"input": GREY, "options": FULL, "teacher": make_net(7), "run_dir": tmp_path}
    with pytest.raises(StopError):
        finetune(make_net(), digits, progress=stop_at(4, StopError), save_seconds=-1.0, **arguments)
    saved = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert (saved["epoch"], saved["step"]) == (0, 3)
    assert same(finetune(make_net(), digits, resume=True, **arguments).model, straight.model)


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("done", [1, 3, 4])
def test_a_run_goes_on_exactly_behind_a_batch_that_cannot_be_read(
    digits, tmp_path, monkeypatch, done
):
    load = data.load_split

    def partly(source, split, **choices):
        images = load(source, split, **choices)
        if split != "train":
            return images
        lost = set(epoch_batches(len(images), 64, seed=QUICK.seed, epoch=0)[1].tolist())
        return StreamedImageSet(
            images.labels, images.classes, images.paths, split, (),
            lambda at: None if at in lost else images.images[at],
        )  # fmt: skip

    monkeypatch.setattr(sys.modules["prunecli.training.finetune"], "load_split", partly)
    straight = finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=tmp_path / "one")
    arguments = {"input": GREY, "options": QUICK, "run_dir": tmp_path / "two"}
    with pytest.raises(InterruptedRunError):
        finetune(make_net(), digits, progress=stop_at(done, KeyboardInterrupt), **arguments)
    resumed = finetune(make_net(), digits, resume=True, **arguments)
    assert same(resumed.model, straight.model)


class InterruptsItself(nn.Module):
    """Presses Ctrl-C in the middle of its third training step."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        if self.training and self.steps == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return self.body(images)


def test_ctrl_c_within_a_step_saves_and_goes_on_exactly(digits, tmp_path):
    with pytest.raises(InterruptedRunError, match="epoch 1 of 2") as caught:
        finetune(InterruptsItself(make_net()), digits, input=GREY, options=QUICK, run_dir=tmp_path)
    assert caught.value.exit_code == 130
    assert caught.value.code == "INTERRUPTED"
    assert "--resume" in caught.value.hint
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 3
    calm = InterruptsItself(make_net())
    calm.steps = 100
    resumed = finetune(calm, digits, input=GREY, options=QUICK, run_dir=tmp_path, resume=True)
    uninterrupted = finetune(calm, digits, input=GREY, options=QUICK)
    assert same(resumed.model, uninterrupted.model)


def test_ctrl_c_without_a_folder_saves_nothing_and_says_so(digits):
    with pytest.raises(InterruptedRunError, match="nothing was saved"):
        finetune(InterruptsItself(make_net()), digits, input=GREY, options=QUICK)


SCRIPT = """
import sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
from prunecli import data
from prunecli.training import finetune
from tests.support.training import FULL, GREY, make_net

def progress(step):
    if step.stage == "train" and step.done > 5:
        Path({ready!r}).touch()
        time.sleep(60)

finetune(make_net(), data.open_source("digits"), input=GREY, options=FULL, teacher=make_net(7),
         run_dir=Path({run!r}), progress=progress)
"""


def test_a_run_that_was_killed_goes_on_exactly(digits, straight, tmp_path):
    ready, run = tmp_path / "ready", tmp_path / "run"
    script = SCRIPT.format(tests=str(Path(__file__).parents[2]), ready=str(ready), run=str(run))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, **threads})
    try:
        while not ready.exists():
            assert child.poll() is None
            time.sleep(0.1)
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
    saved = torch.load(run / STATE_FILE, weights_only=True)
    assert saved["epoch"] >= 1
    resumed = finetune(
        make_net(), digits, input=GREY, options=FULL, teacher=make_net(7), run_dir=run, resume=True
    )
    assert same(resumed.model, straight.model)


def test_resuming_a_finished_run_gives_its_result_again(digits, tmp_path):
    arguments = {"input": GREY, "options": QUICK, "run_dir": tmp_path}
    first = finetune(make_net(), digits, **arguments)
    again = finetune(make_net(), digits, resume=True, **arguments)
    assert same(first.model, again.model)
    assert first.epochs == again.epochs
    assert first.log == again.log


def test_resuming_from_nothing_starts_and_says_so(digits, tmp_path):
    result = finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=tmp_path, resume=True)
    assert any("nothing to resume" in warning for warning in result.warnings)
    assert len(result.epochs) == 2


def test_a_run_is_not_resumed_with_other_settings_or_another_network(digits, tmp_path):
    finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=tmp_path)
    other = dataclasses.replace(QUICK, lr=0.5)
    with pytest.raises(InputError, match=r"lr was None, is 0\.5") as caught:
        finetune(make_net(), digits, input=GREY, options=other, run_dir=tmp_path, resume=True)
    assert caught.value.code == "RESUME_MISMATCH"
    with pytest.raises(InputError, match="network was"):
        finetune(make_net(5), digits, input=GREY, options=QUICK, run_dir=tmp_path, resume=True)
    with pytest.raises(InputError, match="teacher was"):
        finetune(
            make_net(),
            digits,
            input=GREY,
            options=QUICK,
            run_dir=tmp_path,
            resume=True,
            teacher=make_net(),
        )


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
def test_a_damaged_state_is_refused(digits, tmp_path, content):
    (tmp_path / STATE_FILE).write_bytes(content)
    with pytest.raises(PruneError) as caught:
        finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=tmp_path, resume=True)
    assert caught.value.code == "CORRUPT_STATE"


def test_a_folder_that_cannot_be_made_is_refused(digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=tmp_path / "file" / "run")
    assert caught.value.code == "UNWRITABLE_OUTPUT"


# going wrong


def test_a_loss_of_nan_stops_with_advice_and_the_last_good_state_stands(digits, tmp_path):
    model = make_net()
    options = dataclasses.replace(QUICK, epochs=3, lr=1e30, schedule="constant")
    with pytest.raises(InputError, match="no longer a number in epoch 1") as caught:
        finetune(model, digits, input=GREY, options=options, run_dir=tmp_path)
    assert caught.value.code == "DIVERGED"
    assert "--lr 1e+29" in caught.value.hint
    assert "--clip" in caught.value.hint
    assert not (tmp_path / STATE_FILE).exists()
    assert all(value.isfinite().all() for value in model.state_dict().values())


class TurnsBad(nn.Module):
    """Gives NaN in training from its given step on."""

    def __init__(self, body: nn.Module, bad_step: int) -> None:
        super().__init__()
        self.body = body
        self.bad_step = bad_step
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        logits = self.body(images)
        return logits * float("nan") if self.training and self.steps >= self.bad_step else logits


def test_diverging_later_keeps_the_epochs_before(digits, tmp_path):
    with pytest.raises(InputError, match="epoch 2, by step"):
        finetune(TurnsBad(make_net(), 8), digits, input=GREY, options=QUICK, run_dir=tmp_path)
    saved = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert (saved["epoch"], saved["step"]) == (1, 0)
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_an_interrupt_after_the_loss_turned_to_nan_does_not_save_it(digits, tmp_path):
    model = InterruptsItself(TurnsBad(make_net(), 2))
    with pytest.raises((InterruptedRunError, InputError)):
        finetune(model, digits, input=GREY, options=QUICK, run_dir=tmp_path)
    assert not (tmp_path / STATE_FILE).exists()


def test_a_network_for_other_classes_is_refused_before_training(digits):
    with pytest.raises(InputError, match="4 outputs but the data has 10"):
        finetune(make_net(classes=4), digits, input=GREY, options=QUICK)


BAD = {
    "epochs": 0,
    "warmup": -1.0,
    "patience": 0,
    "accumulate": 0,
    "workers": -1,
    "head_epochs": -1,
    "first_rate": 0.0,
    "batch_size": 0,
    "lr": 0.0,
    "momentum": 1.0,
    "weight_decay": -1.0,
    "temperature": 0.0,
    "alpha": 1.5,
    "ema": 1.0,
    "label_smoothing": -0.1,
    "clip": -1.0,
    "held_out": 1.0,
    "limit": 1,
    "p": 1.0,
    "q": 0.0,
    "target_fraction": 0.0,
    "sparsity": 1.0,
    "sparsity_every": 0,
    "sparsity_until": 1.5,
}


@pytest.mark.parametrize("name", RANGES)
def test_every_number_out_of_range_is_refused(digits, name):
    options = dataclasses.replace(QUICK, **{name: BAD[name]})
    with pytest.raises(InputError, match="out of range") as caught:
        finetune(make_net(), digits, input=GREY, options=options)
    assert caught.value.code == "BAD_OPTION"
    assert caught.value.hint


@pytest.mark.parametrize("name", ["optimizer", "schedule", "augment", "amp"])
def test_an_unknown_name_is_refused_with_the_known_ones(digits, name):
    options = dataclasses.replace(QUICK, **{name: "nonsense"})
    with pytest.raises(InputError, match=r"[Kk]nown: "):
        finetune(make_net(), digits, input=GREY, options=options)


PARALLEL = """
from prunecli import data
from prunecli.evaluation.images import evaluate
from prunecli.processes import joined
from prunecli.training import finetune
from tests.support.training import GREY, PLAIN, QUICK, make_net, make_plain_net

digits = data.open_source("digits")
result = finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=folder)
plain = finetune(make_plain_net(), digits, input=GREY, options=PLAIN, teacher=make_plain_net())
images = data.load_split(digits, "test", input=GREY)
scores = evaluate(plain.model, images, input=GREY, batch_size=100, processes=joined())

def decode(at):
    return None if at in (3, 150) else torch.zeros(1, 8, 8, dtype=torch.uint8)

names = tuple(map(str, range(200)))
torn = data.StreamedImageSet(torch.zeros(200, dtype=torch.int64), images.classes, names, "test",
                             (), decode)
read = evaluate(plain.model, torn, input=GREY, batch_size=100, processes=joined())
found = (result.model.state_dict(), result.held_out_after.count, plain.model.state_dict(),
         plain.epochs, scores, read)
"""


@pytest.mark.slow
def test_two_processes_train_one_network(digits, tmp_path):
    first, second = in_two_processes(PARALLEL, tmp_path)
    (one, count, plain, epochs, scores, read), (two, _, plain_too, _, scores_too, read_too) = (
        first, second,
    )  # fmt: skip
    assert count == 143
    trained = [name for name, _ in make_net().named_parameters()]
    assert all(torch.equal(one[name], two[name]) for name in trained)

    # What does not hang on how batches are split is what one process gives, up to rounding.
    alone = finetune(make_plain_net(), digits, input=GREY, options=PLAIN, teacher=make_plain_net())
    for name, value in alone.model.state_dict().items():
        assert torch.equal(plain[name], plain_too[name])
        assert torch.allclose(plain[name], value, rtol=0, atol=1e-5), name
    for ours, theirs in zip(alone.epochs, epochs, strict=True):
        assert (ours.accuracy, ours.learning_rate) == (theirs.accuracy, theirs.learning_rate)
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
        assert (ours.shares, theirs.shares) == ((), (160, 160))
    model = make_plain_net()
    model.load_state_dict(plain)
    images = data.load_split(digits, "test", input=GREY)
    whole = evaluate(model, images, input=GREY, batch_size=100)
    assert scores == scores_too
    assert dataclasses.replace(scores, loss=whole.loss) == whole
    assert scores.loss == pytest.approx(whole.loss, abs=1e-9)

    # Each could not read one image; both say so of both.
    assert read == read_too
    assert read.count == 198
    assert read.warnings == ("2 test images cannot be read, left out, such as 150",)


class RunsOutOfMemory(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = make_net()

    def forward(self, images):
        if self.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.body(images)


def test_running_out_of_memory_says_what_to_change(digits):
    with pytest.raises(InputError, match="--batch-size 32") as caught:
        finetune(RunsOutOfMemory(), digits, input=GREY, options=QUICK)
    assert caught.value.code == "OUT_OF_MEMORY"


class Views(nn.Module):
    """Flattens with `view`, which channels-last memory does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.body = make_net()[:6]
        self.head = nn.Linear(256, 10)
        self.strides: set[bool] = set()

    def forward(self, images):
        features = self.body(images)
        self.strides.add(features.is_contiguous())
        return self.head(features.view(features.shape[0], -1))


def test_a_network_that_needs_contiguous_memory_gets_it(digits):
    result = finetune(Views(), digits, input=GREY, options=QUICK)
    assert result.held_out_after.count == 143
    images = data.load_split(digits, "test", input=GREY)
    assert evaluate(result.model, images, input=GREY).count == 359


def test_ctrl_c_while_images_are_read_is_an_interrupted_run(digits):
    def press(step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="before training began") as caught:
        finetune(make_net(), digits, input=GREY, options=QUICK, progress=press)
    assert caught.value.exit_code == 130
