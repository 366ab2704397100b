"""Warm-up, early stopping, frozen layers and accumulated gradients; the start is kept if best."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from prunecli import data
from prunecli.errors import InputError
from prunecli.methods.training_options import training_of
from prunecli.options import PruneOptions
from prunecli.options.declare import assembled, check_effect
from prunecli.training import finetune
from prunecli.training.loop import learning_rate, parts_of
from prunecli.training.schedules import SCHEDULES
from tests.support.training import (
    GREY,
    PLAIN,
    QUICK,
    StopError,
    make_net,
    make_plain_net,
    same,
    session_of,
    stop_at,
)
from tests.support.two_processes import in_two_processes

SPOILING = dataclasses.replace(QUICK, lr=3.0, schedule="constant", clip=1.0)
"""What makes any network worse."""


@pytest.fixture(scope="module")
def digits():
    return data.open_source("digits")


@pytest.fixture(scope="module")
def good(digits):
    return finetune(make_net(), digits, input=GREY, options=dataclasses.replace(QUICK, epochs=3))


@pytest.mark.parametrize("batch_size", [16, 25])
def test_accumulated_gradients_are_those_of_a_larger_batch(digits, batch_size):
    rich = dataclasses.replace(PLAIN, augment="crop", label_smoothing=0.1, epochs=2)
    arguments = {"input": GREY, "teacher": make_plain_net()}
    whole = dataclasses.replace(rich, batch_size=4 * batch_size)
    parts = dataclasses.replace(rich, batch_size=batch_size, accumulate=4)
    one = finetune(make_plain_net(), digits, options=whole, **arguments)
    two = finetune(make_plain_net(), digits, options=parts, **arguments)
    assert two.steps_per_epoch == one.steps_per_epoch
    assert not same(one.model, make_plain_net())
    for (name, value), other in zip(
        one.model.state_dict().items(), two.model.state_dict().values(), strict=True
    ):
        assert torch.allclose(value, other, rtol=0, atol=2e-6), name
    for ours, theirs in zip(one.epochs, two.epochs, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-6)


@pytest.mark.parametrize(("count", "most"), [(1, 4), (8, 4), (9, 4), (129, 64), (64, 64)])
def test_parts_are_few_and_alike_and_cover_a_batch(count, most):
    parts = parts_of(count, most)
    sizes = [part.stop - part.start for part in parts]
    assert [at for part in parts for at in range(count)[part]] == list(range(count))
    assert len(parts) == -(-count // most)
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


PARALLEL = """
import dataclasses
from prunecli import data
from prunecli.training import finetune
from tests.support.training import GREY, PLAIN, make_plain_net
options = dataclasses.replace(PLAIN, batch_size=16, accumulate=4, patience=5)
result = finetune(make_plain_net(), data.open_source("digits"), input=GREY, options=options)
found = result.model.state_dict()
"""


def test_two_processes_accumulate_as_one_does(digits, tmp_path):
    one, two = in_two_processes(PARALLEL, tmp_path)
    alone = finetune(
        make_plain_net(), digits, input=GREY, options=dataclasses.replace(PLAIN, batch_size=64)
    )
    for name, value in alone.model.state_dict().items():
        assert torch.equal(one[name], two[name])
        assert torch.allclose(one[name], value, rtol=0, atol=1e-5), name


def test_frozen_layers_stay_bit_for_bit(digits):
    start = make_net()
    options = dataclasses.replace(QUICK, freeze=("0", "1"), ema=0.5)
    trained = finetune(start, digits, input=GREY, options=options).model
    for name, value in trained.state_dict().items():
        frozen = name.split(".")[0] in ("0", "1")
        assert torch.equal(value, start.state_dict()[name]) is frozen, name


def test_a_pattern_of_a_tensor_freezes_that_alone(digits):
    start = make_net()
    options = dataclasses.replace(QUICK, freeze=("*.bias",))
    trained = finetune(start, digits, input=GREY, options=options).model.state_dict()
    kept = {name for name, value in trained.items() if torch.equal(value, start.state_dict()[name])}
    assert kept == {name for name in trained if name.endswith(".bias")}


@pytest.mark.parametrize(
    ("patterns", "code", "said"),
    [
        (("0", "features.*"), "NO_SUCH_LAYER", "--freeze features.* matches no layer"),
        (("2",), "NO_SUCH_LAYER", "--freeze 2"),  # a ReLU has nothing to freeze
        (("*",), "NOTHING_TO_TRAIN", "leaves nothing"),
    ],
)
def test_patterns_that_freeze_nothing_or_all_are_told_before_images(patterns, code, said):
    options = dataclasses.replace(QUICK, freeze=patterns)
    with pytest.raises(InputError, match=said.replace("*", r"\*")) as caught:
        finetune(make_net(), None, input=GREY, options=options)
    assert caught.value.code == code


def test_a_warm_up_rises_in_a_line_to_the_schedule():
    options = dataclasses.replace(
        QUICK, warmup=0.5, schedule="cosine", lr=1.0, limit=640, batch_size=20
    )
    run = session_of(None, options=options).run
    steps, rise = run.steps, round(0.5 * run.recipe.steps_per_epoch)
    rates = [learning_rate(run, step) for step in range(steps)]
    assert rise == 16
    assert rates[:rise] == pytest.approx([(step + 1) / (rise + 1) for step in range(rise)])
    schedule = SCHEDULES.get("cosine")
    assert rates[rise:] == [schedule(step, steps - rise) for step in range(steps - rise)]


def test_a_warm_up_has_no_effect_on_one_cycle():
    with pytest.raises(InputError, match="--warmup has no effect") as caught:
        check_effect(dataclasses.replace(QUICK, warmup=1.0), teacher=True)
    assert "cosine" in caught.value.hint


def test_training_stops_where_nothing_gets_better(digits, good):
    options = dataclasses.replace(SPOILING, epochs=9, patience=2)
    result = finetune(good.model, digits, input=GREY, options=options)
    assert len(result.epochs) == 2
    assert result.stopped_early
    patient = finetune(
        good.model, digits, input=GREY, options=dataclasses.replace(options, epochs=2)
    )
    assert [epoch.learning_rate for epoch in patient.epochs] == [3.0, 3.0]


def test_a_run_that_is_not_spent_takes_all_epochs(digits):
    result = finetune(
        make_net(), digits, input=GREY, options=dataclasses.replace(QUICK, patience=2)
    )
    assert len(result.epochs) == QUICK.epochs
    assert not result.stopped_early
    assert result.best_epoch > 0


def test_what_noise_makes_of_a_good_network_is_the_result_all_the_same(digits, good):
    options = dataclasses.replace(SPOILING, epochs=1, regularizer="bridgeout", target_fraction=1.0)
    result = finetune(good.model, digits, input=GREY, options=options)
    assert result.held_out_after.accuracy < result.held_out_before.accuracy
    assert result.best_epoch == 1
    assert not same(result.model, good.model)


@pytest.mark.parametrize("done", [1, 5, 8])
def test_a_stopped_run_goes_on_exactly_with_all_of_these(digits, tmp_path, monkeypatch, done):
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)
    options = dataclasses.replace(
        QUICK, batch_size=32, accumulate=2, warmup=1.0, schedule="cosine", freeze=("1",), patience=1
    )
    straight = finetune(make_net(), digits, input=GREY, options=options)
    arguments = {"input": GREY, "options": options, "run_dir": tmp_path}
    with pytest.raises(StopError):
        finetune(make_net(), digits, progress=stop_at(done, StopError), **arguments)
    resumed = finetune(make_net(), digits, resume=True, **arguments)
    assert same(resumed.model, straight.model)


def test_more_patience_may_be_given_to_a_run_that_goes_on(digits, good, tmp_path):
    options = dataclasses.replace(SPOILING, epochs=3, patience=1)
    arguments = {"input": GREY, "run_dir": tmp_path}
    first = finetune(good.model, digits, options=options, **arguments)
    patient = dataclasses.replace(options, patience=2)
    more = finetune(good.model, digits, options=patient, resume=True, **arguments)
    assert (len(first.epochs), len(more.epochs)) == (1, 2)


def test_methods_that_prune_take_them_too():
    options = assembled(
        PruneOptions,
        {"epochs": 4, "accumulate": 3, "warmup": 0.5, "schedule": "linear", "patience": 2,
         "freeze": ("0",)},
    )  # fmt: skip
    training = training_of(options)
    assert (training.accumulate, training.warmup, training.patience) == (3, 0.5, 2)
    assert training.freeze == ("0",)


def test_a_pattern_of_nothing_is_told_before_anything_is_pruned(digits, monkeypatch):
    import prunecli

    monkeypatch.setattr("prunecli.api.pruning.read_network", None)  # what would come next
    with pytest.raises(InputError, match="nothing_here matches no layer"):
        prunecli.prune(
            make_net(), torch.zeros(2, 1, 8, 8), flops=0.5, data="digits", input=GREY, epochs=1,
            freeze="nothing_here",
        )  # fmt: skip


def test_patience_that_ends_with_the_last_epoch_stops_nothing_early(digits, good):
    options = dataclasses.replace(SPOILING, epochs=2, patience=2)
    result = finetune(good.model, digits, input=GREY, options=options)
    assert (len(result.epochs), result.best_epoch) == (2, 0)
    assert not result.stopped_early
