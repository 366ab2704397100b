"""The device of a training, its compilation, and the trackers that hear of its epochs."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from importlib.machinery import ModuleSpec

import pytest
import torch
from accelerate import Accelerator

from prunecli import data
from prunecli.errors import DeviceError, InputError
from prunecli.options import FinetuneOptions
from prunecli.preflight import training as preflight
from prunecli.report import EpochReport
from prunecli.training import check_options, finetune
from prunecli.training.devices import make_accelerator
from prunecli.training.trackers import tracking
from tests.support.training import GREY, QUICK, StopError, make_net, make_plain_net, same, stop_at


@pytest.fixture(scope="module")
def digits():
    return data.open_source("digits")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "CPU", "0"])
def test_a_word_that_is_no_device_is_told(name):
    with pytest.raises(InputError, match="is no device") as caught:
        check_options(dataclasses.replace(QUICK, device=name))
    assert caught.value.code == "BAD_OPTION"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps"])
def test_a_device_that_is_not_there_is_told_before_images(name):
    with pytest.raises(DeviceError) as caught:
        finetune(make_net(), None, input=GREY, options=dataclasses.replace(QUICK, device=name))
    assert caught.value.code == "DEVICE_MISSING"
    assert name in caught.value.where


def test_the_device_of_one_run_is_not_that_of_the_next(monkeypatch):
    from accelerate import PartialState

    make_accelerator("no")  # what state there is, is there now
    monkeypatch.setattr(PartialState, "default_device", torch.device("meta"))
    monkeypatch.setattr(PartialState(), "_cpu", False)
    assert make_accelerator("no", "cpu").device == torch.device("cpu")
    assert make_accelerator("no").device == torch.device("meta")
    monkeypatch.undo()
    assert make_accelerator("no").device.type in ("cpu", "cuda")


@pytest.fixture
def traced_alone(monkeypatch):
    """Compile as far as the trace: code in C++ takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.usefixtures("traced_alone")
def test_a_compiled_training_gives_the_same_network_and_goes_on_exactly(
    digits, tmp_path, monkeypatch
):
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)
    options = dataclasses.replace(QUICK, compile=True)
    arguments = {"input": GREY, "options": options, "run_dir": tmp_path}
    with pytest.raises(StopError):
        finetune(make_plain_net(), digits, progress=stop_at(4, StopError), **arguments)
    resumed = finetune(make_plain_net(), digits, resume=True, **arguments)
    straight = finetune(make_plain_net(), digits, input=GREY, options=options)
    assert same(resumed.model, straight.model)
    plain = finetune(make_plain_net(), digits, input=GREY, options=QUICK)
    assert type(straight.model) is type(plain.model)
    for (name, value), other in zip(
        straight.model.state_dict().items(), plain.model.state_dict().values(), strict=True
    ):
        assert torch.allclose(value, other, rtol=0, atol=1e-5), name


def test_what_cannot_be_compiled_is_said(digits, monkeypatch):
    def failing(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=failing))
    with pytest.raises(InputError, match="cannot be compiled") as caught:
        finetune(make_net(), digits, input=GREY, options=dataclasses.replace(QUICK, compile=True))
    assert caught.value.code == "NOT_COMPILED"
    assert "--compile" in caught.value.hint


def test_without_a_compiler_nothing_is_compiled(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler") as caught:
        check_options(dataclasses.replace(QUICK, compile=True))
    assert caught.value.code == "NO_COMPILER"


@pytest.mark.parametrize("name", preflight.TRACKERS)
def test_a_tracker_that_is_not_installed_is_named_before_work(monkeypatch, name):
    monkeypatch.setattr(preflight, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=f"--log {name} needs the package") as caught:
        finetune(make_net(), None, input=GREY, options=dataclasses.replace(QUICK, log=(name,)))
    assert f"pip install {preflight.TRACKERS[name][0]}" in caught.value.hint


def test_the_packages_of_trackers_are_those_that_accelerate_knows(monkeypatch):
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    assert set(preflight.TRACKERS) <= set(LOGGER_TYPE_TO_CLASS)
    spec = ModuleSpec("nothing", None)
    monkeypatch.setattr(preflight, "find_spec", lambda _: spec)
    check_options(FinetuneOptions(log=("csv", *preflight.TRACKERS)))
    assert "wandb" not in sys.modules


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """Read event files as TensorBoard itself does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_every_epoch_once_whatever_stopped_the_run(digits, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)
    options = dataclasses.replace(QUICK, log=("tensorboard",))
    arguments = {"input": GREY, "options": options, "run_dir": tmp_path / "net.run"}
    with pytest.raises(StopError):
        finetune(make_net(), digits, progress=stop_at(7, StopError), **arguments)
    result = finetune(make_net(), digits, resume=True, **arguments)
    found = scalars(tmp_path / "net.run" / "prunecli")
    assert [step for step, _ in found["accuracy"]] == [1, 2]
    for name in ("accuracy", "train_loss", "learning_rate"):
        logged = [value for _, value in found[name]]
        assert logged == pytest.approx([getattr(epoch, name) for epoch in result.epochs], rel=1e-6)


def test_what_a_tracker_wrote_outlives_a_resumption_that_is_refused(digits, tmp_path, monkeypatch):
    finetune(make_net(), digits, input=GREY, options=QUICK, run_dir=tmp_path)
    events = tmp_path / "prunecli" / "events"
    events.parent.mkdir()
    events.write_text("every epoch")
    monkeypatch.setattr(preflight, "find_spec", lambda _: ModuleSpec("nothing", None))
    other = dataclasses.replace(QUICK, lr=0.5, log=("tensorboard",))
    with pytest.raises(InputError, match="cannot be resumed"):
        finetune(make_net(), digits, input=GREY, options=other, run_dir=tmp_path, resume=True)
    assert events.read_text() == "every epoch"


def test_losses_that_are_told_do_not_depend_on_when_they_are_looked_at(digits, monkeypatch):
    told = []
    for seconds in (-1.0, 1e9):
        monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", seconds)
        result = finetune(make_net(), digits, input=GREY, options=QUICK)
        told.append([epoch.train_loss for epoch in result.epochs])
    assert told[0] == told[1]


def test_a_tracker_that_fails_in_the_middle_says_what_to_do(tmp_path, monkeypatch):
    class Full:
        def log(self, *_, **__):
            raise OSError("no space left")

        def finish(self):
            """Have nothing to close."""

    monkeypatch.setattr("prunecli.training.trackers._started", lambda *_: [Full()])
    epoch = EpochReport(1, 0.41, 0.90, 0.33, 0.05, 2400.0, 18.0)
    with (
        pytest.raises(InputError, match="no space left") as caught,
        tracking(Accelerator(cpu=True), ("tensorboard",), {}, tmp_path / "run") as tell,
    ):
        tell(epoch)
    assert caught.value.code == "TRACKER_FAILED"
    assert "--resume" in caught.value.hint
