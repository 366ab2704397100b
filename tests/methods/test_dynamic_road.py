"""Dynamic channel execution by the road of all methods that train, on handwritten digits."""

from __future__ import annotations

import dataclasses

import pytest

from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.errors import InputError, InterruptedRunError
from prunecli.evaluation.images import evaluate
from prunecli.methods.dynamic import Dynamic, DynamicOptions
from prunecli.methods.road import train_and_prune
from prunecli.options import PruneOptions, TrainingOptions
from prunecli.progress import Clock
from tests.support.dynamic import digits_network
from tests.support.samples import sample
from tests.support.training import GREY, same

TRAINING = TrainingOptions(epochs=3, batch_size=40, amp="no")
OPTIONS = PruneOptions(method="dynamic", signal="taylor", limit=200, training=TRAINING)


def prune(*, options=OPTIONS, flops=0.5, **arguments):
    network = digits_network(sample("digits_resnet"))
    return network, train_and_prune(
        arguments.pop("way", Dynamic()), network, open_source("digits"), input=GREY,
        budget=make_budget(flops=flops), options=options, **arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    return prune()


def test_the_budget_is_used_and_the_cut_is_proven(whole):
    _, result = whole
    kept = result.report.cost.kept["flops"]
    assert 0.97 * 0.5 <= kept <= 0.5
    assert result.report.verified.max_rel_error < 1e-8
    assert result.report.learning.max_rel_error < 1e-8
    assert result.plan.cost_after["flops"] == kept * result.plan.cost_before["flops"]


def test_the_report_says_what_was_chosen_from_for_how_long_and_at_which_share(whole):
    network, result = whole
    learning = result.report.learning
    dense = network.cost.dense_widths
    widths = [group.after for group in result.report.groups]
    assert learning.gates == sum(a for a, b in zip(dense.tolist(), widths, strict=True) if b < a)
    assert learning.search_epochs == round(round(0.5 * 15) / 5, 3)
    assert learning.kept == result.report.cost.kept["flops"]
    assert [point.phase for point in learning.course] == ["search", "train", "train"]
    assert {point.budget for point in learning.course} == {0.5}
    assert {point.cost for point in learning.course} == {learning.kept}
    assert [point.updates for point in learning.course] == [5, 10, 15]
    assert learning.course[0].flips > 0
    assert learning.course[2].flips == 0
    assert all(point.accuracy is not None for point in learning.course)


def test_accuracies_are_of_the_original_model_and_of_the_result(whole):
    network, result = whole
    held_out = load_split(open_source("digits"), "held_out", input=GREY, limit=256)
    found = result.report.learning
    for model, told, loss in (
        (network.model, found.accuracy.before, found.loss[0]),
        (result.model, found.accuracy.after, found.loss[1]),
    ):
        scores = evaluate(model.eval(), held_out, input=GREY)
        assert scores.accuracy == pytest.approx(told, abs=1e-9)
        assert scores.loss == pytest.approx(loss, rel=1e-5)


class Stopper:
    """Interrupts a run once it reports so many updates."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def __call__(self, step) -> None:
        if step.stage == "train" and step.done >= self.updates:
            raise KeyboardInterrupt


@pytest.mark.parametrize("updates", [5, 10])
def test_a_run_that_is_stopped_goes_on_bit_by_bit(whole, tmp_path, updates):
    with pytest.raises(InterruptedRunError):
        prune(run_dir=tmp_path, clock=Clock(Stopper(updates)))
    resuming = dataclasses.replace(TRAINING, resume=True)
    options = dataclasses.replace(OPTIONS, training=resuming)
    _, resumed = prune(run_dir=tmp_path, options=options)
    _, straight = whole
    assert not resumed.report.warnings or "nothing to resume" not in str(resumed.report.warnings)
    assert resumed.plan == straight.plan
    assert same(resumed.model, straight.model)
    assert [point.loss for point in resumed.report.learning.course] == [
        point.loss for point in straight.report.learning.course
    ]


def test_a_dry_run_trains_nothing():
    _, result = prune(dry_run=True)
    assert result.model is None
    assert result.report.learning.search_epochs == 1.5
    assert result.report.learning.gates > 0


def test_the_search_takes_the_share_that_is_asked_for():
    training = dataclasses.replace(TRAINING, search=0.8, epochs=2)
    options = dataclasses.replace(OPTIONS, training=training)
    _, result = prune(options=options, way=Dynamic(DynamicOptions(settle=False)))
    assert result.report.learning.search_epochs == 8 / 5


def test_a_repair_is_refused():
    with pytest.raises(InputError, match="has been trained since"):
        prune(options=dataclasses.replace(OPTIONS, repair=("bn",)))
