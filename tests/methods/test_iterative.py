"""The whole road of an iterative cut, on handwritten digits."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from prunecli import verbs
from prunecli.architectures.reference import InputSpec
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.errors import GraphError, InputError, InterruptedRunError
from prunecli.evaluation.images import evaluate
from prunecli.methods import ways  # noqa: F401 - registers all methods
from prunecli.methods.iterative import Iterative
from prunecli.methods.registry import METHODS
from prunecli.methods.road import train_and_prune
from prunecli.network.traced import read_network
from prunecli.options import METHOD_DEFAULTS, PruneOptions, TrainingOptions
from prunecli.report import to_json
from tests.support.samples import VGG
from tests.support.two_processes import in_two_processes

if TYPE_CHECKING:
    from pathlib import Path

SHORT = TrainingOptions(updates=2, remove_per_step=12, batch_size=32, amp="no")


def options(signal: str = "fisher", **changes) -> PruneOptions:
    own = dataclasses.replace(SHORT, **changes)
    return PruneOptions(method="iterative", signal=signal, limit=300, training=own)


def prune(folder: Path, *, name: str = "slim.pt", flops: float = 0.5, given=None, **arguments):
    return verbs.prune(
        VGG,
        output=folder / name,
        budget=make_budget(flops=flops),
        options=given or options(),
        data="digits",
        **arguments,
    )


class Stopper:
    """Raises an error when a run reports updates after some removals."""

    def __init__(self, removals: int, error: BaseException) -> None:
        self.removals, self.error = removals, error

    def __call__(self, step) -> None:
        if step.stage == "train" and step.facts.get("removals") == self.removals:
            raise self.error


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the report of a run that nobody stops, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return prune(folder), folder


def test_the_budget_is_kept_the_cut_is_proven_and_widths_are_aligned(whole):
    report, folder = whole
    assert report.cost.kept["flops"] <= 0.5
    assert report.verified.max_rel_error < 1e-8
    assert all(group.after % 4 == 0 for group in report.groups)
    assert report.mode == "module"
    assert (folder / "slim.pt").exists()


def test_every_removal_is_reported_with_its_proof_and_what_is_left(whole):
    report, folder = whole
    removals = report.iterative.removals
    assert [removal.updates for removal in removals] == [
        2 * (at + 1) for at in range(len(removals))
    ]
    shares = [removal.flops for removal in removals]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(report.cost.kept["flops"])
    gone = [a.channels - b.channels for a, b in itertools.pairwise(removals)]
    assert set(gone[:-1]) == {12}
    assert gone[-1] <= 12
    assert all(removal.max_rel_error < 1e-8 for removal in removals)
    assert report.iterative.planned_updates > 0
    assert len((folder / "slim.run" / "log.jsonl").read_text().splitlines()) == len(removals)
    assert to_json(report)["iterative"]["removals"][0]["removal"] == 1


def test_the_artefact_is_the_network_that_was_scored(whole):
    report, folder = whole
    loaded = read(folder / "slim.pt").checkpoint
    held_out = load_split(open_source("digits"), "held_out", input=loaded.input, limit=1024)
    scores = evaluate(instantiate(loaded), held_out, input=loaded.input)
    assert scores.accuracy == pytest.approx(report.iterative.accuracy.after, abs=1e-9)
    assert scores.loss == pytest.approx(report.iterative.loss[1], rel=1e-5)


@pytest.mark.parametrize(
    ("error", "removals"), [(KeyboardInterrupt(), 0), (RuntimeError("killed"), 2)]
)
def test_a_run_that_is_stopped_goes_on_bit_by_bit(whole, tmp_path, error, removals):
    with pytest.raises((InterruptedRunError, RuntimeError)) as caught:
        prune(tmp_path, progress=Stopper(removals, error))
    if isinstance(caught.value, InterruptedRunError):
        assert "--resume" in caught.value.hint
    assert not (tmp_path / "slim.pt").exists()
    with pytest.raises(InputError, match="an unfinished run exists") as refused:
        prune(tmp_path)
    assert refused.value.code == "UNFINISHED_RUN"
    resumed = prune(tmp_path, given=options(resume=True))
    report, folder = whole
    assert resumed.plan == report.plan
    assert len(resumed.iterative.removals) == len(report.iterative.removals)
    ours, theirs = (read(at / "slim.pt").checkpoint.tensors for at in (tmp_path, folder))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_a_run_goes_on_with_its_own_settings_alone(tmp_path):
    with pytest.raises(InterruptedRunError):
        prune(tmp_path, progress=Stopper(1, KeyboardInterrupt()))
    with pytest.raises(InputError, match="signal was fisher, is taylor") as caught:
        prune(tmp_path, given=options("taylor", resume=True))
    assert caught.value.code == "RESUME_MISMATCH"


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path):
    report = prune(tmp_path, dry_run=True, given=options(remove_per_step=None, updates=7))
    assert report.iterative.planned_removals == 30
    assert report.iterative.planned_updates == 31 * 7
    assert report.iterative.planned_seconds > 0
    assert report.verified is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("signal", ["random", "lamp", "bn-gamma", "taylor-2019"])
def test_every_kind_of_signal_reaches_the_budget(tmp_path, signal):
    quick = options(signal, remove_per_step=60, updates=1)
    assert prune(tmp_path, flops=0.7, given=quick).cost.kept["flops"] <= 0.7


def test_a_teacher_is_learnt_from(tmp_path, whole):
    taught = prune(tmp_path, given=options(teacher=VGG))
    alone, folder = whole
    first, second = (read(at / "slim.pt").checkpoint.tensors for at in (tmp_path, folder))
    assert taught.iterative.removals[0].train_loss != alone.iterative.removals[0].train_loss
    assert any(not torch.equal(first[name], second[name]) for name in first if name in second)


def shrink(model: nn.Module, **arguments):
    torch.manual_seed(0)
    return train_and_prune(
        Iterative(),
        read_network(model.eval(), [torch.randn(2, 1, 8, 8)]),
        open_source("digits"),
        input=InputSpec(1, 8, 8, (0.3,), (0.4,)),
        budget=make_budget(flops=0.6),
        options=arguments.pop("options", options(remove_per_step=20)),
        **arguments,
    )


# --- what training offers -------------------------------------------------------------------------


@pytest.mark.parametrize("signal", ["fisher", "taylor-2019"])
def test_it_trains_in_bf16_and_proves_every_cut_in_full_precision(tmp_path, signal):
    report = prune(tmp_path, given=options(signal, amp="bf16", remove_per_step=30))
    assert report.iterative.precision == "bf16"
    assert report.cost.kept["flops"] <= 0.5
    assert report.verified.max_rel_error < 1e-8
    assert all(removal.max_rel_error < 1e-8 for removal in report.iterative.removals)
    tensors = read(tmp_path / "slim.pt").checkpoint.tensors
    assert all(value.dtype != torch.bfloat16 for value in tensors.values())


def test_what_is_heard_in_bf16_is_about_what_is_heard_in_full_precision(tmp_path):
    plans = [
        prune(tmp_path, name=f"{amp}.pt", given=options(amp=amp, remove_per_step=80)).plan
        for amp in ("no", "bf16")
    ]
    kept = [
        {(name, channel) for name, all_ in plan["keep"].items() for channel in all_}
        for plan in plans
    ]
    assert len(kept[0] & kept[1]) / len(kept[0] | kept[1]) > 0.8


class Rates:
    """Remembers the learning rates that a run sets."""

    def __init__(self, monkeypatch) -> None:
        self.seen: list[float] = []
        monkeypatch.setattr("prunecli.training.loop.set_learning_rate", self)

    def __call__(self, optimizer, rate) -> None:
        self.seen.append(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate


def test_a_schedule_goes_over_all_updates(tmp_path, monkeypatch):
    rates = Rates(monkeypatch)
    report = prune(tmp_path, given=options(schedule="linear", lr=0.01))
    updates = report.iterative.removals[-1].updates + 2
    assert len(rates.seen) == updates
    assert rates.seen == sorted(rates.seen, reverse=True)
    assert rates.seen[0] == pytest.approx(0.01)
    assert rates.seen[-1] == pytest.approx(0.01 / updates)


def test_the_averaged_weights_are_given_back_and_resume_bit_by_bit(whole, tmp_path):
    given = options(ema=0.9, schedule="cosine")
    report = prune(tmp_path, name="straight.pt", given=given)
    plain, folder = whole
    assert report.cost.kept["flops"] <= 0.5
    assert report.verified.max_rel_error < 1e-8
    assert report.iterative.removals[0].accuracy != plain.iterative.removals[0].accuracy or (
        report.iterative.removals[0].loss != plain.iterative.removals[0].loss
    )
    with pytest.raises(RuntimeError):
        prune(tmp_path, given=given, progress=Stopper(2, RuntimeError("killed")))
    prune(tmp_path, given=dataclasses.replace(given, training=dataclasses.replace(
        given.training, resume=True)))  # fmt: skip
    first, second, other = (
        read(path).checkpoint.tensors
        for path in (tmp_path / "straight.pt", tmp_path / "slim.pt", folder / "slim.pt")
    )
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert any(not torch.equal(other[name], value) for name, value in first.items()
               if other[name].shape == value.shape)  # fmt: skip


PARALLEL = """
from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import TrainingOptions, PruneOptions
from prunecli.report import to_json
from tests.support.samples import VGG

reports = []
for signal in ("fisher", "taylor-2019", "l1"):
    own = TrainingOptions(updates=2, remove_per_step=40, batch_size=32, amp="no", ema=0.5)
    report = verbs.prune(
        VGG, output=folder / f"{signal}.pt", budget=make_budget(flops=0.6),
        data="digits",
        options=PruneOptions(method="iterative", signal=signal, limit=300, training=own))
    reports.append(to_json(report))
found = [(each["plan"]["keep"], each["iterative"]["accuracy"], each["iterative"]["removals"])
         for each in reports]
"""


@pytest.mark.slow
def test_two_processes_remove_the_same_channels_and_one_writes(tmp_path):
    one, two = in_two_processes(PARALLEL, tmp_path)
    for (keep, accuracy, removals), (same_keep, same_accuracy, same_removals) in zip(
        one, two, strict=True
    ):
        assert keep == same_keep
        assert accuracy == same_accuracy
        for ours, theirs in zip(removals, same_removals, strict=True):
            for each in (ours, theirs):
                del each["seconds_per_update"]
            assert ours == theirs
    for signal in ("fisher", "taylor-2019", "l1"):
        assert read(tmp_path / f"{signal}.pt").checkpoint.tensors
        log = (tmp_path / f"{signal}.run" / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["removal"] for line in log] == list(range(1, len(log) + 1))


class Baked(nn.Module):
    """A forward with the number of its channels written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.second = nn.Conv2d(32, 32, 3, padding=1, stride=4)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x):
        x = self.norm(self.first(x)).relu().view(-1, 32, 8, 8)
        return self.classifier(self.second(x).relu().view(-1, 128))


def test_a_network_with_its_sizes_baked_in_shrinks_as_a_graph():
    model = Baked()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = shrink(model)
    assert result.report.mode == "graph"
    assert result.program is not None
    assert result.model(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert result.model.get_parameter("first.weight").shape[0] < 32


class Standardised(nn.Module):
    """A network whose forward computes its weight from another."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 1, 3, 3))
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        weight = self.weight / self.weight.square().sum((1, 2, 3), keepdim=True)
        return self.classifier(nn.functional.conv2d(x, weight).relu().mean((2, 3)))


def test_a_network_that_computes_its_weights_is_refused_before_any_training():
    with pytest.raises(GraphError, match="computes weights") as caught:
        shrink(Standardised())
    assert caught.value.code == "ITERATIVE_NEEDS_GRAPH"


def test_frozen_weights_stay_as_they_are():
    model = Baked()
    model.second.weight.requires_grad_(requires_grad=False)
    before = model.second.weight.clone()
    result = shrink(model)
    after = result.model.get_parameter("second.weight")
    keep = result.plan.slices["second.weight"]
    for dim, kept in keep.items():
        before = before.index_select(dim, torch.tensor(kept))
    assert torch.equal(after, before)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (dataclasses.replace(options(), repair=("bn",)), "BAD_OPTION"),
        (options(updates=0), "BAD_OPTION"),
        (options(lr=-1.0), "BAD_OPTION"),
        (options(optimizer="sgdd"), "UNKNOWN_OPTIMIZER"),
        (options(schedule="onecycle"), "UNKNOWN_SCHEDULE"),
        (options(ema=1.0), "BAD_OPTION"),
        (options(amp="half"), "UNKNOWN_PRECISION"),
        (options("tailor"), "UNKNOWN_SIGNAL"),
    ],
)
def test_choices_that_mean_nothing_are_refused(tmp_path, given, code):
    with pytest.raises(InputError) as caught:
        prune(tmp_path, given=given)
    assert caught.value.code == code
    assert not list(tmp_path.iterdir())


def test_images_are_needed(tmp_path):
    with pytest.raises(InputError, match="trains the model"):
        verbs.prune(VGG, output=tmp_path / "o.pt", budget=make_budget(flops=0.5), options=options())


def test_an_unknown_method_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="unknown pruning method") as caught:
        prune(tmp_path, given=PruneOptions(method="iterativ"))
    assert "'iterative'" in caught.value.hint


def test_the_command_line_completes_the_methods_that_there_are():
    assert set(METHODS.names()) == set(METHOD_DEFAULTS)
