# ruff: noqa: ARG002 - a hook has its arguments whether it looks at them or not
"""The hooks of a training-time method: their order, what follows a replacement, what resumes."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from prunecli import data
from prunecli.cutting.surgery import cut_module
from prunecli.errors import InputError, InterruptedRunError
from prunecli.report import EpochReport, fact_names, fact_text, to_json
from prunecli.training import finetune
from prunecli.training.finetune import reproducible
from prunecli.training.loop import set_learning_rate
from prunecli.training.method import PlainMethod, Replacement, TrainingRun
from prunecli.training.optimizers import OPTIMIZERS
from prunecli.training.schedules import SCHEDULES
from prunecli.training.state import load_snapshot, save_snapshot, write_logs
from tests.support import fake_verbs
from tests.support.training import GREY, SHORT, make_net, same, session_of, trained

if TYPE_CHECKING:
    from collections.abc import Mapping


class Recording(PlainMethod):
    """Writes down every call with the number of steps taken."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def start(self, run):
        self.calls.append(("start", run.taken))

    def before_step(self, run):
        self.calls.append(("before_step", run.taken))
        self.weight = run.bare[0].weight.detach().clone()

    def extra_loss(self, run, batch):
        assert batch.loss.requires_grad
        assert batch.logits.dtype == torch.float32
        assert len(batch.images) == len(batch.labels) == len(batch) == 40
        self.calls.append(("extra_loss", run.taken))

    def after_backward(self, run, batch):
        assert torch.equal(run.bare[0].weight, self.weight)
        assert run.bare[0].weight.grad.abs().sum() > 0
        assert not batch.loss.requires_grad
        self.calls.append(("after_backward", run.taken))

    def after_step(self, run):
        assert not torch.equal(run.bare[0].weight, self.weight)
        assert not run.between_steps
        self.calls.append(("after_step", run.taken))

    def after_round(self, run, report):
        assert report.facts == {"worth": 7.0}
        assert report.epoch * run.recipe.steps_per_epoch == run.taken
        self.calls.append(("after_round", run.taken))

    def settled(self, run):
        self.calls.append(("settled", run.taken))
        return run.taken > 4

    def facts(self):
        return {"worth": 7.0}

    def finish(self, run):
        self.calls.append(("finish", run.taken))


STEP = ["before_step", "extra_loss", "after_backward", "after_step"]


def test_the_hooks_are_called_in_the_promised_order_and_number():
    method = Recording()
    session = trained(method)
    names = [name for name, _ in method.calls]
    assert names == [
        "start", "settled", *STEP * 4, "settled", "after_round", *STEP * 4, "settled",
        "after_round", "finish",
    ]  # fmt: skip
    steps = [taken for name, taken in method.calls if name in STEP]
    assert [(step, len(list(all_))) for step, all_ in groupby(steps)] == [(n, 4) for n in range(8)]
    assert session.best.epoch == 2  # the first round was not settled
    assert [report.facts for report in session.reports] == [{"worth": 7.0}] * 2


def test_a_method_that_does_nothing_changes_nothing():
    assert same(trained(Recording()).run.bare, trained(None).run.bare)


def test_rounds_may_be_shorter_than_epochs_and_cross_them():
    options = dataclasses.replace(SHORT, epochs=3)
    with reproducible():
        by_epochs, by_threes = (session_of(None, options=options, round_steps=n) for n in (None, 3))
        by_epochs.train()
        by_threes.train()
    assert (len(by_epochs.reports), len(by_threes.reports)) == (3, 4)
    assert by_threes.run.taken == 12
    assert same(by_epochs.run.bare, by_threes.run.bare)
    assert by_threes.reports[-1].loss == by_epochs.reports[-1].loss


class Pulls(PlainMethod):
    """Adds a loss whose gradient is known."""

    def extra_loss(self, run, batch):
        return 3.0 * run.bare[8].bias.sum()

    def after_backward(self, run, batch):
        self.pulled = run.bare[8].bias.grad.clone()


def test_the_extra_loss_is_part_of_the_gradient():
    gradients = []
    for method in (Pulls(), Recording()):
        with reproducible():
            session = session_of(method, options=dataclasses.replace(SHORT, limit=40, epochs=1))
            kept = method.after_backward

            def watch(run, batch, kept=kept):
                kept(run, batch)
                gradients.append(run.bare[8].bias.grad.clone())

            method.after_backward = watch
            session.train()
    torch.testing.assert_close(gradients[0], gradients[1] + 3.0)


class ChangesItsEnd(PlainMethod):
    def after_round(self, run, report):
        if report.epoch == 1:
            run.steps = 12


def test_a_run_may_get_longer_on_the_way_and_the_schedule_follows():
    options = dataclasses.replace(SHORT, schedule="linear")
    session = trained(ChangesItsEnd(), options=options)
    rates = [report.learning_rate for report in session.reports]
    peak, linear = session.recipe.peak, SCHEDULES.get("linear")
    ends = ((3, 8), (7, 12), (11, 12))
    assert rates == pytest.approx([peak * linear(*end) for end in ends])


# --- another network in its place -----------------------------------------------------------------


def halves() -> dict[str, dict[int, tuple[int, ...]]]:
    """Return every other channel of the first convolution of `make_net`."""
    kept = tuple(range(0, 16, 2))
    first = {name: {0: kept} for name in ("0.weight", "1.weight", "1.bias", "1.running_mean")}
    return {**first, "1.running_var": {0: kept}, "3.weight": {1: kept}}


class Halves(PlainMethod):
    """Cuts the first convolution after some steps, or after a round."""

    def __init__(self, *, step: int | None = None) -> None:
        self.step = step
        self.cut = False

    def after_step(self, run):
        return self._cut(run) if run.taken == self.step else None

    def after_round(self, run, report):
        return self._cut(run) if self.step is None and report.epoch == 1 else None

    def settled(self, run):
        return self.cut

    def facts(self):
        return {"halved": float(self.cut)}

    def state(self):
        return {"cut": self.cut}

    def restore(self, run, state):
        return self._cut(run) if state["cut"] else None

    def _cut(self, run: TrainingRun) -> Replacement:
        self.cut = True
        module = make_net(5)
        module.load_state_dict(run.bare.state_dict())
        self.before = (
            copy.deepcopy({name: value.clone() for name, value in run.bare.state_dict().items()}),
            {name: dict(run.optimizer.state[p]) for name, p in run.bare.named_parameters()},
            None if run.average is None else copy.deepcopy(run.average.model.state_dict()),
        )
        return Replacement.cut(cut_module(module, halves()), halves())


def sliced(name: str, tensor: torch.Tensor) -> torch.Tensor:
    for dim, kept in halves().get(name, {}).items():
        tensor = tensor[tuple(kept if at == dim else slice(None) for at in range(tensor.dim()))]
    return tensor


@pytest.mark.parametrize("optimizer", OPTIMIZERS.names())
def test_the_optimiser_and_the_average_follow_a_replacement(optimizer):
    options = dataclasses.replace(SHORT, ema=0.9, optimizer=optimizer, lr=1e-2)
    method = Halves()

    class Looks(Halves):
        def after_round(self, run, report):
            found = super().after_round(run, report)
            self.run = run
            return found

        def before_step(self, run):
            if run.taken == 4:
                self.compare(run)

        def compare(self, run):
            weights, states, average = self.before
            for name, parameter in run.bare.named_parameters():
                assert torch.equal(parameter, sliced(name, weights[name]))
                for key, value in run.optimizer.state[parameter].items():
                    old = states[name][key]
                    like = isinstance(old, torch.Tensor) and old.shape == weights[name].shape
                    torch.testing.assert_close(value, sliced(name, old) if like else old)
            for name, value in run.average.model.state_dict().items():
                assert torch.equal(value, sliced(name, average[name])), name
            assert any(
                not torch.equal(value, sliced(name, weights[name]))
                for name, value in run.average.model.state_dict().items()
            )
            self.compared = True

    method = Looks()
    session = trained(method, options=options)
    assert method.compared
    assert session.run.bare[0].out_channels == 8
    assert session.best.epoch == 2


@pytest.mark.parametrize("amp", ["no", "bf16"])
@pytest.mark.parametrize("step", [2, None])
def test_training_goes_on_after_a_replacement_at_any_time(amp, step):
    session = trained(Halves(step=step), options=dataclasses.replace(SHORT, ema=0.5, amp=amp))
    assert session.run.bare[0].weight.shape == (8, 1, 3, 3)
    assert session.run.average.model[0].weight.shape == (8, 1, 3, 3)
    assert session.run.bare[0].weight.dtype == torch.float32
    assert session.reports[-1].facts == {"halved": 1.0}
    precision = {"no": "fp32", "bf16": "bf16"}[amp]
    assert [report.precision for report in session.reports] == [precision] * 2


class HalvesOnceSettled(Halves):
    """Has a result of the first round, then cuts within the second, which is no result."""

    def settled(self, run):
        return not self.cut


def test_a_best_round_of_the_network_before_a_replacement_within_a_round_is_forgotten():
    with reproducible():
        session = session_of(HalvesOnceSettled(step=5))
        session.train()
    assert session.run.bare[0].out_channels == 8
    assert session.best is None


def test_the_result_is_of_the_last_network_however_good_those_before_were():
    class AlwaysSettled(Halves):
        def settled(self, run):
            return True

        def after_step(self, run):
            found = super().after_step(run)
            if found is not None:
                nn.init.zeros_(found.module[0].weight)  # far worse than the round before
            return found

    session = trained(AlwaysSettled(step=7), options=dataclasses.replace(SHORT, lr=1e-2))
    assert session.reports[1].accuracy < session.reports[0].accuracy
    assert session.best.epoch == 2


class StopError(Exception):
    """Stands for a kill."""


class Stops(Halves):
    """Is stopped before a step."""

    def __init__(self, at: int, error: type[BaseException], step: int | None = None) -> None:
        super().__init__(step=step)
        self.at, self.error = at, error

    def before_step(self, run):
        if run.taken == self.at:
            run.between_steps = True
            raise self.error


@pytest.mark.parametrize(
    ("at", "error", "step"),
    [(2, KeyboardInterrupt, None), (4, StopError, None), (6, KeyboardInterrupt, None),
     (3, KeyboardInterrupt, 1), (7, StopError, 1)],
)  # fmt: skip
def test_a_run_with_a_replacement_resumes_bit_by_bit(tmp_path, at, error, step):
    options = dataclasses.replace(SHORT, ema=0.9, epochs=3)
    straight = trained(Halves(step=step), options=options)
    with reproducible(), pytest.raises((StopError, InterruptedRunError)):
        session_of(Stops(at, error, step), options=options, folder=tmp_path).train()
    with reproducible():
        resumed = session_of(Halves(step=step), options=options, folder=tmp_path)
        assert resumed.restore()
        resumed.train()
        resumed.finish()
    assert same(resumed.run.bare, straight.run.bare)
    assert same(resumed.run.average.model, straight.run.average.model)
    assert [report.loss for report in resumed.reports] == [r.loss for r in straight.reports]


class Gates(PlainMethod):
    """Trains a scale of every output, with a learning rate of its own and no decay."""

    def start(self, run):
        gated = nn.Sequential(*run.bare, Scale())
        return Replacement.same_tensors(
            gated, [{"params": [gated[9].scale], "weight_decay": 0.0, "lr_scale": 50.0}]
        )


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10))

    def forward(self, values):
        return values * self.scale


def test_parameters_of_a_method_have_a_learning_rate_of_their_own():
    session = trained(Gates(), options=dataclasses.replace(SHORT, ema=0.9))
    groups = session.run.optimizer.param_groups
    assert [len(group["params"]) for group in groups] == [3, 5, 1]
    assert [group["weight_decay"] for group in groups] == [SHORT.weight_decay, 0.0, 0.0]
    set_learning_rate(session.run.optimizer, 0.1)
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.1, 5.0])
    assert (session.run.bare[9].scale - 1).abs().max() > 1e-3
    assert session.run.average.model[9].scale.shape == (10,)


def test_draws_depend_on_seed_epoch_step_and_use_alone():
    run = session_of(None).run
    first = torch.rand(3, generator=run.generator(0))
    assert torch.equal(torch.rand(3, generator=run.generator(0)), first)
    assert not torch.equal(torch.rand(3, generator=run.generator(1)), first)
    run.step = 1
    assert not torch.equal(torch.rand(3, generator=run.generator(0)), first)


# --- what is reported and remembered --------------------------------------------------------------


def test_facts_stand_beside_the_other_numbers_of_an_epoch(tmp_path):
    session = trained(Halves(), folder=tmp_path)
    rows = [json.loads(line) for line in session.log.read_text().splitlines()]
    assert [row["halved"] for row in rows] == [0.0, 1.0]
    header = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert header[-3:] == ["precision", "halved", "shares"]
    zeros = EpochReport(1, 0.5, 0.9, 0.4, 0.1, 10.0, 1.0, facts={"sparsity": 0.8, "price": 12345.6})
    assert to_json(zeros)["sparsity"] == zeros.sparsity == 0.8
    assert "facts" not in to_json(zeros)
    names = fact_names([session.reports[0], zeros])
    assert names == ("halved", "sparsity", "price")
    assert [fact_text(zeros, name) for name in names] == ["", "80.0 %", "1.235e+04"]


def test_shares_are_written_in_per_cent_and_counts_as_whole_numbers():
    told = {"budget": 0.5, "expected": 0.505, "cost": 0.4979, "alive": 12345.0, "flips": 3.0}
    epoch = EpochReport(1, 0.5, 0.9, 0.4, 0.1, 10.0, 1.0, facts=told)
    texts = [fact_text(epoch, name) for name in told]
    assert texts == ["50.0 %", "50.5 %", "49.8 %", "12345", "3"]


def test_a_log_of_a_course_holds_all_widths_in_both_of_its_forms(tmp_path):
    points = fake_verbs.learning_report().course
    log = write_logs(points, tmp_path)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert rows == [dataclasses.asdict(point) for point in points]
    with (tmp_path / "log.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(points)
    for row, point in zip(table, points, strict=True):
        assert "widths" not in row
        for name, width in point.widths.items():
            assert int(row[f"widths.{name}"]) == width
        assert row["accuracy"] == ("" if point.accuracy is None else str(point.accuracy))
        assert float(row["budget"]) == point.budget


def test_a_state_from_before_there_were_methods_still_loads(tmp_path):
    session = trained(None, folder=tmp_path)
    snapshot = load_snapshot(tmp_path, settings={})
    save_snapshot(snapshot, tmp_path)
    fields = torch.load(tmp_path / "state.pt", weights_only=True)
    masks = {"masks": {"0.weight": torch.ones(16, 1, 3, 3).bool()}, "hidden": {}}
    fields |= {"zeros": masks}
    for name in ("method", "steps"):
        del fields[name]
    for report in fields["reports"]:
        del report["facts"], report["precision"]
        report["sparsity"] = 0.25
    torch.save(fields, tmp_path / "state.pt")
    old = load_snapshot(tmp_path, settings={})
    assert torch.equal(old.method["masks"]["0.weight"], masks["masks"]["0.weight"])
    assert old.steps is None
    assert [report.sparsity for report in old.reports] == [0.25, 0.25]
    assert old.reports[0].loss == session.reports[0].loss


def test_what_a_method_remembers_is_given_back_exactly(tmp_path):
    class Remembers(PlainMethod):
        told: Mapping[str, Any] | None = None

        def state(self):
            return {"price": torch.tensor([0.1, 0.2], dtype=torch.float64), "at": [1, "two"]}

        def restore(self, run, state):
            self.told = state

    trained(Remembers(), folder=tmp_path)
    again = Remembers()
    assert session_of(again, folder=tmp_path).restore()
    assert torch.equal(again.told["price"], Remembers().state()["price"])
    assert again.told["at"] == [1, "two"]


def test_finetune_takes_a_method_and_gives_back_its_network():
    digits = data.open_source("digits")
    result = finetune(make_net(), digits, input=GREY, options=SHORT, method=Halves())
    assert result.model[0].weight.shape == (8, 1, 3, 3)
    assert result.best_epoch == 2
    assert result.plan is None


@pytest.mark.parametrize("sparsity", [None, 0.5])
def test_masked_weights_and_a_method_are_refused_before_any_work(tmp_path, sparsity):
    digits, options = data.open_source("digits"), dataclasses.replace(SHORT, sparsity=sparsity)
    masks = {"0.weight": torch.ones(16, 1, 3, 3).bool()} if sparsity is None else None
    with pytest.raises(InputError, match="another one was given"):
        finetune(
            make_net(), digits, input=GREY, options=options, method=Halves(), masks=masks,
            run_dir=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
