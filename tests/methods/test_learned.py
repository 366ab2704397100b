"""Methods that learn what to prune, on real digits: budget, proof, resume, refusals."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
import torch

from prunecli import verbs
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.errors import GateError, GraphError, InputError, InterruptedRunError
from prunecli.options import LatencyOptions, PruneOptions, TrainingOptions
from prunecli.options.methods import LEARNED
from prunecli.wording import percent
from tests.support import html_checks
from tests.support.samples import VGG
from tests.support.two_processes import in_two_processes

if TYPE_CHECKING:
    from pathlib import Path

SHORT = TrainingOptions(epochs=2, batch_size=32, amp="no")
RESNET = VGG.with_name("digits_resnet.safetensors")


def options(method: str = "exact-gates", **changes) -> PruneOptions:
    own = dataclasses.replace(SHORT, **changes)
    return PruneOptions(method=method, limit=320, training=own)


def prune(folder: Path, *, name: str = "slim.pt", model: Path = VGG, given=None, **arguments):
    budget = arguments.pop("budget", None) or make_budget(flops=0.4)
    return verbs.prune(
        model,
        output=folder / name,
        budget=budget,
        options=given or options(),
        data="digits",
        **arguments,
    )


@pytest.mark.parametrize("method", LEARNED)
def test_every_method_keeps_its_budget_and_proves_what_it_cut(tmp_path, method):
    report = prune(tmp_path, given=options(method))
    assert 0.97 <= report.cost.kept["flops"] / 0.4 <= 1.0
    assert report.verified.max_rel_error < 1e-9
    learning = report.learning
    assert learning.method == method
    assert learning.accuracy.after > 0.5
    # The file holds what was scored: it is loaded anew, and has the widths of the report.
    slim = instantiate(read(tmp_path / "slim.pt").checkpoint)
    sizes = sum(value.numel() for value in slim.parameters())
    assert sizes == report.cost.after["params"]
    ends = [point for point in learning.course if point.accuracy is not None]
    assert len(ends) == 2
    # Dynamic execution notes the ends of epochs alone, and its search is over at the first.
    first = "train" if method == "dynamic" else "search"
    assert (learning.course[0].phase, ends[-1].phase) == (first, "train")


@pytest.mark.parametrize(
    ("budget", "kind"),
    [({"params": 0.3}, "params"), ({"activations": 0.6}, "activations"), ({"bytes": 0.5}, "bytes")],
)
@pytest.mark.parametrize("method", ["exact-gates", "bar"])
def test_budgets_of_other_costs_are_kept(tmp_path, method, budget, kind):
    report = prune(tmp_path, given=options(method, epochs=1), budget=make_budget(**budget))
    (asked,) = budget.values()
    assert 0.95 * asked <= report.cost.kept[kind] <= asked


def test_the_budget_falls_and_no_mask_is_ever_above_or_far_below_it(tmp_path):
    report = prune(tmp_path, given=options(epochs=4, search=0.5), model=RESNET)
    searched = [point for point in report.learning.course if point.phase == "search"]
    budgets = [point.budget for point in searched]
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[-1] == pytest.approx(0.4)
    assert all(point.cost <= point.budget + 1e-6 for point in searched)
    assert all(point.cost > 0.8 * point.budget for point in searched)
    assert sum(point.flips for point in searched) > 0


class Stopper:
    """Presses Ctrl-C when so many updates are reported."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def __call__(self, step) -> None:
        if step.stage == "train" and step.done >= self.updates:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "at"), [("exact-gates", 3), ("exact-gates", 16), ("bar", 3), ("gradual", 4)]
)
def test_an_interrupted_run_goes_on_bit_by_bit(tmp_path, monkeypatch, method, at):
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", -1.0)
    given = options(method, search=0.6, ema=0.5)
    whole = prune(tmp_path, name="whole.pt", given=given)
    with pytest.raises(InterruptedRunError, match="stopped in epoch"):
        prune(tmp_path, name="twice.pt", given=given, progress=Stopper(at))
    resumed = dataclasses.replace(given, training=dataclasses.replace(given.training, resume=True))
    again = prune(tmp_path, name="twice.pt", given=resumed)
    first, second = (read(tmp_path / name).checkpoint.tensors for name in ("whole.pt", "twice.pt"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [p.widths for p in whole.learning.course] == [p.widths for p in again.learning.course]


def test_the_log_holds_the_course(tmp_path):
    report = prune(tmp_path, given=options(epochs=1))
    rows = [json.loads(line) for line in report.learning.log.read_text().splitlines()]
    assert len(rows) == len(report.learning.course)
    assert rows[0]["widths"] == dict(report.learning.course[0].widths)
    assert {"budget", "expected", "cost", "alive", "flips"} <= rows[0].keys()


def test_a_run_is_shown_as_it_went_on_its_page_in_pictures_and_in_its_table(tmp_path):
    steps = []
    report = prune(
        tmp_path,
        given=options(batch_size=10, search=0.6),
        page=tmp_path / "slim.html",
        plots=tmp_path / "pictures",
        progress=steps.append,
    )
    learning = report.learning
    # 32 updates an epoch, with points after every third: scores belong to the ends all the same.
    assert [(point.epoch, point.updates) for point in learning.scored] == [(1.0, 32), (2.0, 64)]
    assert [point.updates for point in learning.searched[:3]] == [3, 6, 9]
    assert {path.stem for path in report.pictures} == {"layers", "course", "widths"}
    words = " ".join(html_checks.read((tmp_path / "slim.html").read_text()).words)
    assert f"{percent(learning.accuracy.after)} {percent(learning.accuracy.before)} before" in words
    told = [step.facts for step in steps if step.stage == "train"]
    assert any({"budget", "expected", "cost", "alive", "flips"} <= facts.keys() for facts in told)
    with learning.log.with_suffix(".csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    kept = {group.name: group.after for group in report.groups}
    assert {name: int(table[-1][f"widths.{name}"]) for name in kept} == kept


def test_the_published_forms_are_options_and_differ(tmp_path):
    ours = prune(tmp_path, name="a.pt", given=options("bar", epochs=1))
    theirs = prune(
        tmp_path,
        name="b.pt",
        given=options("bar", epochs=1, start="equal", threshold="fixed", volume="hard"),
    )
    # As published, a short search never sees its cost: all gates are alike until they cross.
    assert theirs.learning.course[0].expected != ours.learning.course[0].expected
    assert theirs.cost.kept["flops"] <= 0.4  # the cut at the end keeps the budget all the same


def test_it_trains_in_bf16_with_averages_and_clipping(tmp_path):
    report = prune(tmp_path, given=options(amp="bf16", ema=0.9, clip=1.0))
    assert report.learning.precision == "bf16"
    assert report.verified.max_rel_error < 1e-9
    assert report.learning.accuracy.after > 0.5


def test_excluded_layers_stay_and_are_told(tmp_path):
    dense = prune(tmp_path, given=options(epochs=1), dry_run=True)
    name = dense.groups[0].name
    given = dataclasses.replace(options(epochs=1), exclude=(name,))
    report = prune(tmp_path, given=given)
    kept = {group.name: group for group in report.groups}
    assert kept[name].after == kept[name].before
    assert report.learning.ungated[name] == "--exclude"


def test_a_dry_run_says_what_would_be_done(tmp_path):
    report = prune(tmp_path, given=options(epochs=5), dry_run=True)
    assert report.output is None
    assert (report.learning.epochs, report.learning.search_epochs) == (5, pytest.approx(2, abs=0.1))
    assert report.learning.gates > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "arguments", "kind", "code"),
    [
        (options(), {"budget": make_budget(flops=0.001)}, GateError, "INFEASIBLE_BUDGET"),
        (options("bar", updates=3), {}, InputError, "OPTION_WITHOUT_EFFECT"),
        (options("gradual", start="equal"), {}, InputError, "OPTION_WITHOUT_EFFECT"),
        (options("exact-gates", volume="hard"), {}, InputError, "OPTION_WITHOUT_EFFECT"),
        (options("iterative", epochs=2), {}, InputError, "OPTION_WITHOUT_EFFECT"),
        (options(optimizer="sgdd"), {}, InputError, "UNKNOWN_OPTIMIZER"),
        (dataclasses.replace(options(), repair=("bn",)), {}, InputError, "BAD_OPTION"),
        (dataclasses.replace(options(), only=("nothing",)), {}, InputError, "NO_SUCH_LAYER"),
        (
            dataclasses.replace(options("bar"), allocation="greedy"),
            {},
            InputError,
            "OPTION_WITHOUT_EFFECT",
        ),
        (
            dataclasses.replace(options("dynamic"), signal="l2"),
            {},
            InputError,
            "OPTION_WITHOUT_EFFECT",
        ),
        (
            dataclasses.replace(options("dynamic"), aggregate="max"),
            {},
            InputError,
            "OPTION_WITHOUT_EFFECT",
        ),
    ],
)
def test_what_cannot_be_is_told_before_the_work(tmp_path, given, arguments, kind, code):
    with pytest.raises(kind) as caught:
        prune(tmp_path, given=given, **arguments)
    assert caught.value.code == code
    assert not (tmp_path / "slim.pt").exists()


@pytest.mark.parametrize("method", ["gradual", "slimming", "group-lasso"])
def test_a_signal_of_images_is_refused_where_weights_are_scored_along_the_way(tmp_path, method):
    steps = []
    given = dataclasses.replace(options(method), signal="taylor")
    with pytest.raises(InputError, match="the signal taylor looks at images") as caught:
        prune(tmp_path, given=given, progress=steps.append)
    assert "--data" not in caught.value.hint
    assert not steps  # before the model is even read


def test_groups_that_a_signal_of_weights_cannot_see_stay_whole_and_are_told(tmp_path):
    import prunecli
    from prunecli.architectures.reference import InputSpec

    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(16 * 16, 10),
    )  # fmt: skip
    report = prunecli.prune(
        model, torch.zeros(2, 1, 8, 8), params=0.8, method="slimming", epochs=1, limit=64,
        amp="no", data="digits", input=InputSpec(1, 8, 8, (0.3,), (0.4,)), run_dir=tmp_path,
    ).report  # fmt: skip
    first, second = report.groups
    assert first.after < first.before
    assert second.after == second.before
    assert report.learning.gates == 16
    assert "bn-gamma cannot see" in report.learning.ungated[second.name]


@pytest.mark.parametrize(("rate", "together"), [(None, False), (1e-3, True)])
def test_clipping_looks_at_weights_and_not_at_gates_whose_steps_have_one_length(
    tmp_path, monkeypatch, rate, together
):
    """Logits of one length have a norm of 17 here: with them, `--clip 1` would stop the weights."""
    from accelerate import Accelerator

    clipped = []
    own = Accelerator.clip_grad_norm_

    def clip(accelerator, parameters, norm):
        clipped.append([tuple(parameter.shape) for parameter in parameters])
        return own(accelerator, parameters, norm)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", clip)
    report = prune(tmp_path, given=options(epochs=1, clip=1.0, gate_lr=rate))
    assert ((report.learning.gates,) in clipped[0]) == together
    assert len(clipped[0]) - together == len(list(instantiate(read(VGG).checkpoint).parameters()))


def test_a_run_with_a_latency_table_can_be_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("prunecli.pruning.timed.RUNS", 3)  # what is measured is not looked at
    given = dataclasses.replace(
        options(epochs=1), latency=LatencyOptions(table=tmp_path / "t.json", threads=1)
    )
    budget = make_budget(latency=0.95)
    whole = prune(tmp_path, given=given, budget=budget)
    given = dataclasses.replace(given, training=dataclasses.replace(given.training, resume=True))
    again = prune(tmp_path, given=given, budget=budget, overwrite=True)
    assert again.learning.kept == whole.learning.kept
    assert not any("nothing to resume" in said for said in again.warnings)


def test_resuming_from_python_asks_for_the_folder_of_the_run():
    import prunecli
    from prunecli.architectures.reference import InputSpec

    with pytest.raises(InputError, match="none was given") as caught:
        prunecli.prune(
            torch.nn.Linear(4, 4), torch.zeros(2, 4), flops=0.5, method="bar", resume=True,
            data="digits", input=InputSpec(1, 8, 8, (0.3,), (0.4,)),
        )  # fmt: skip
    assert "run_dir" in caught.value.hint


@pytest.mark.parametrize("method", ["exact-gates", "gradual", "group-lasso", "dynamic"])
def test_a_run_that_diverges_before_the_cut_says_so(tmp_path, monkeypatch, method):
    monkeypatch.setattr("prunecli.training.loop.REPORT_SECONDS", 1e9)  # no look at the loss before
    with pytest.raises(InputError, match="weights are no longer numbers") as caught:
        prune(tmp_path, given=options(method, epochs=1, lr=1e30))
    assert caught.value.code == "DIVERGED"
    assert "--lr" in caught.value.hint


def test_images_are_needed(tmp_path):
    with pytest.raises(InputError, match="no images were given"):
        verbs.prune(VGG, output=tmp_path / "a.pt", budget=make_budget(flops=0.5), options=options())


def test_slimming_without_batch_norm_names_another_method(tmp_path):
    import prunecli
    from prunecli.architectures.reference import InputSpec

    class Plain(torch.nn.Sequential):
        pass

    model = Plain(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )
    with pytest.raises(InputError, match="no channel of this model has one") as caught:
        prunecli.prune(
            model, torch.zeros(2, 1, 8, 8), flops=0.5, method="slimming", epochs=1, limit=64,
            data="digits", input=InputSpec(1, 8, 8, (0.3,), (0.4,)), dry_run=True,
        )  # fmt: skip
    assert "group-lasso" in caught.value.hint


class FixedKernel(torch.nn.Module):
    """A convolution whose kernel is a buffer reads the channels of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 16, 3, padding=1)
        kernel = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("kernel", kernel / 12)
        self.last = torch.nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.nn.functional.conv2d(self.first(x).relu(), self.kernel, padding=1)
        return self.last(seen.relu().mean((2, 3)))


def test_gates_sit_on_kernels_that_are_buffers_too():
    import prunecli
    from prunecli.architectures.reference import InputSpec

    result = prunecli.prune(
        FixedKernel(), torch.zeros(2, 1, 8, 8), flops=0.6, method="bar", epochs=1, limit=64,
        amp="no", data="digits", input=InputSpec(1, 8, 8, (0.3,), (0.4,)),
    )  # fmt: skip
    assert result.report.cost.kept["flops"] <= 0.6
    assert result.report.verified.max_rel_error < 1e-9


def test_a_cut_at_once_is_trained_in_the_same_command(tmp_path):
    own = TrainingOptions(epochs=1, amp="no", batch_size=32)
    given = PruneOptions(signal="l1", training=own, limit=320)
    report = prune(tmp_path, given=given)
    assert report.learning.method == "one-shot"
    assert report.learning.accuracy.after > report.learning.accuracy.before
    (point,) = report.learning.course
    assert (point.epoch, point.updates) == (1.0, 320 / 32)
    with pytest.raises(InputError, match="no images were given"):
        verbs.prune(VGG, output=tmp_path / "b.pt", budget=make_budget(flops=0.5), options=given)


def test_a_dry_run_of_a_cut_that_is_trained_says_so(tmp_path):
    import prunecli
    from prunecli.architectures.reference import InputSpec

    own = TrainingOptions(epochs=3, amp="no", batch_size=32)
    report = prune(tmp_path, given=PruneOptions(signal="l1", training=own, limit=320), dry_run=True)
    assert (report.learning.epochs, report.learning.search_epochs) == (3, 0)
    assert report.learning.taught_by.origin == "itself"
    assert not list(tmp_path.iterdir())
    same = prunecli.prune(
        instantiate(read(VGG).checkpoint), torch.zeros(2, 1, 8, 8), flops=0.5, signal="l1",
        epochs=3, data="digits", input=InputSpec(1, 8, 8, (0.3,), (0.4,)), dry_run=True,
    ).report  # fmt: skip
    assert (same.learning.epochs, same.learning.taught_by.origin) == (3, "itself")


def test_a_training_that_loses_what_the_repair_gained_is_not_kept(tmp_path):
    own = TrainingOptions(epochs=1, amp="no", batch_size=32, lr=0.3)
    trained = prune(tmp_path, given=PruneOptions(training=own, limit=320))
    alone = prune(tmp_path, name="alone.pt", given=PruneOptions(limit=320))
    assert trained.repair.steps[-1].accuracy == alone.repair.steps[-1].accuracy > 0.9
    assert (trained.learning.best_epoch, len(trained.learning.course)) == (0, 1)
    assert trained.learning.accuracy.after == trained.learning.accuracy.before
    assert any("than the model before training" in said for said in trained.warnings)
    first, second = (read(tmp_path / name).checkpoint.tensors for name in ("slim.pt", "alone.pt"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_teacher_with_other_classes_is_refused_before_training(tmp_path, make_checkpoint):
    from prunecli.checkpoint import save

    other = tmp_path / "teacher.pt"
    save(make_checkpoint("digits_vgg", num_classes=7), other)
    with pytest.raises(InputError, match="the teacher has 7 outputs") as caught:
        prune(tmp_path, given=options(teacher=other))
    assert caught.value.code == "TEACHER_MISMATCH"


def test_a_network_without_gates_to_put_anywhere_is_refused(tmp_path):
    with pytest.raises(GraphError) as caught:
        prune(tmp_path, given=dataclasses.replace(options(), exclude=("*",)))
    assert caught.value.code == "NOTHING_TO_CUT"


PARALLEL = """
from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import TrainingOptions, PruneOptions
from prunecli.report import to_json
from tests.support.samples import VGG

reports = []
for method in ("exact-gates", "bar"):
    own = TrainingOptions(epochs=2, batch_size=32, amp="no", ema=0.5)
    report = verbs.prune(
        VGG, output=folder / f"{method}.pt", budget=make_budget(flops=0.5),
        data="digits",
        options=PruneOptions(method=method, limit=320, training=own))
    reports.append(to_json(report))
found = [(each["plan"]["keep"], each["learning"]["accuracy"],
          [point["widths"] for point in each["learning"]["course"]])
         for each in reports]
"""


@pytest.mark.slow
def test_two_processes_draw_alike_decide_alike_and_one_writes(tmp_path):
    one, two = in_two_processes(PARALLEL, tmp_path)
    assert one == two
    for method in ("exact-gates", "bar"):
        assert read(tmp_path / f"{method}.pt").checkpoint.tensors
