"""Repair right after the cut: known answers from numpy and autograd, reports, refusals."""

from __future__ import annotations

import copy
import dataclasses
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli import report as reports
from prunecli import verbs
from prunecli.artefacts import provenance
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.errors import GraphError, InputError
from prunecli.evaluation.images import evaluate
from prunecli.least_squares import equations
from prunecli.options import PruneOptions
from prunecli.repair import lockstep, steps
from prunecli_cli.main import main
from prunecli_cli.tables import view
from tests.support import fake_verbs
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.pruning.road import PruneResult

IMAGE = torch.zeros(2, 3, 8, 8)


@pytest.fixture(autouse=True)
def almost_no_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(equations.NormalEquations.solve.__kwdefaults__, "ridge", 1e-12)


def images(count: int = 48, shape: tuple[int, ...] = (3, 8, 8)) -> Callable[[], list]:
    generator = torch.Generator().manual_seed(7)
    whole = torch.randn(count, *shape, generator=generator)
    labels = torch.randint(0, 5, (count,), generator=generator)
    return lambda: list(zip(whole.split(20), labels.split(20), strict=True))


def all_of(batches: Callable[[], list]) -> Tensor:
    return torch.cat([inputs for inputs, _ in batches()])


def repaired(model: nn.Module, *names: str, batches=None, example=IMAGE, **options) -> PruneResult:
    options = {"sparsity": 0.4, "align": 1, **options}
    return prunecli.prune(model, example, repair=names, batches=batches or images(), **options)


def plain(*layers: nn.Module) -> nn.Module:
    return randomize_(nn.Sequential(*layers), seed=3).eval()


class Block(nn.Module):
    """A stem, a residual block whose inner width is cut, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first, self.norm1 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.second, self.norm2 = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.norm2(self.second(self.norm1(self.first(x)).relu())) + x
        return self.fc(x.relu().mean((2, 3)))


def block() -> nn.Module:
    return randomize_(Block(), seed=1).eval()


# --- known answers -------------------------------------------------------------------------------


def test_least_squares_of_a_linear_layer_is_that_of_numpy() -> None:
    model = plain(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 5))
    batches = images(shape=(6,))
    result = repaired(model, "lstsq", batches=batches, example=torch.zeros(2, 6))
    with torch.no_grad():
        hidden = result.model[:2](all_of(batches)).double().numpy()
        wanted = model(all_of(batches)).double().numpy()
    columns = np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1)
    found = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    np.testing.assert_allclose(result.model[2].weight.detach(), found[:-1].T, atol=2e-5)
    np.testing.assert_allclose(result.model[2].bias.detach(), found[-1], atol=2e-5)


def test_least_squares_of_a_convolution_goes_into_its_weight_and_the_norm_behind_it() -> None:
    model = plain(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3, bias=False), nn.BatchNorm2d(5),
        nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 5),
    )  # fmt: skip
    result = repaired(model, "lstsq", only=["0"])
    with torch.no_grad():
        hidden = result.model[:2](all_of(images())).double().numpy()
        wanted = model[:3](all_of(images())).double().numpy()
    windows = sliding_window_view(hidden, (3, 3), axis=(2, 3))
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, hidden.shape[1] * 9)
    columns = np.concatenate([columns, np.ones((len(columns), 1))], axis=1)
    found = np.linalg.lstsq(columns, wanted.transpose(0, 2, 3, 1).reshape(-1, 5), rcond=None)[0]
    weight = result.model[2].weight.detach().reshape(5, -1)
    np.testing.assert_allclose(weight, found[:-1].T, atol=2e-5)
    (before, start), (after, end) = (scale_and_shift(net[3]) for net in (model, result.model))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    np.testing.assert_allclose((end - start) / before, found[-1], atol=2e-5)


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Return what a batch norm multiplies by in evaluation, and what it adds."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    return scale.detach().double().numpy(), shift.detach().double().numpy()


CONSUMERS = {
    "grouped": lambda: nn.Conv2d(8, 8, 3, groups=4),
    "depthwise": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
    "strided and dilated": lambda: nn.Conv2d(8, 6, (3, 1), stride=2, dilation=2, padding=(2, 1)),
}


@pytest.mark.parametrize("name", CONSUMERS)
def test_no_small_change_of_a_refitted_convolution_comes_nearer(name: str) -> None:
    consumer = CONSUMERS[name]()
    model = plain(
        nn.Conv2d(3, 8, 3), nn.ReLU(), consumer, nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(consumer.out_channels, 5),
    )  # fmt: skip
    result = repaired(model, "lstsq", sparsity=0.3)
    kept = torch.tensor(result.plan.slices.get("2.weight", {}).get(0, range(len(model[2].weight))))
    loss = (result.model[:3](all_of(images())) - model[:3](all_of(images()))[:, kept]).square()
    loss.mean().backward()
    assert len(result.model[0].weight) < 8
    assert result.model[2].weight.grad.abs().max() < 1e-5
    assert result.model[2].bias.grad.abs().max() < 1e-5


def test_convolutions_over_sequences_are_refitted_too() -> None:
    model = plain(
        nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 6, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    batches = images(shape=(3, 16))
    result = repaired(model, "lstsq", batches=batches, example=torch.zeros(2, 3, 16), only=["0"])
    inputs = all_of(batches)
    (result.model[:3](inputs) - model[:3](inputs)).square().mean().backward()
    assert result.model[2].weight.grad.abs().max() < 1e-5


def test_the_last_layer_of_a_block_makes_up_for_what_the_shortcut_lost() -> None:
    model = block()
    result = repaired(model, "lstsq", sparsity=0.4)
    assert result.model.stem.weight.shape[0] < 8
    kept = torch.tensor(result.plan.slices["stem.weight"][0])

    def stream(network: nn.Module) -> Tensor:
        x = network.stem(all_of(images())).relu()
        return network.norm2(network.second(network.norm1(network.first(x)).relu())) + x

    (stream(result.model) - stream(model).detach()[:, kept]).square().mean().backward()
    assert result.model.second.weight.grad.abs().max() < 1e-5
    assert result.model.norm2.bias.grad.abs().max() < 1e-5


def test_least_squares_does_not_depend_on_the_repairs_before_it() -> None:
    alone, last = (repaired(block(), *names) for names in (("lstsq",), ("bn", "bias", "lstsq")))
    for name, value in alone.model.state_dict().items():
        assert torch.equal(value, last.model.state_dict()[name]), name


def test_batch_norm_gets_the_statistics_of_what_it_reads() -> None:
    result = repaired(block(), "bn")
    seen = {}
    result.model.norm1.register_forward_pre_hook(lambda _, inputs: seen.update(one=inputs[0]))
    result.model.norm2.register_forward_pre_hook(lambda _, inputs: seen.update(two=inputs[0]))
    with torch.no_grad():
        result.model(all_of(images()))
    for name, norm in (("one", result.model.norm1), ("two", result.model.norm2)):
        rows = seen[name].transpose(0, 1).flatten(1).double().numpy()
        np.testing.assert_allclose(norm.running_mean, rows.mean(1), atol=1e-5)
        np.testing.assert_allclose(norm.running_var, rows.var(1, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("name", ["lstsq", "bias"])
def test_training_goes_on_from_what_was_repaired(name: str, monkeypatch) -> None:
    """With the statistics of the images themselves the network is what it is in evaluation."""
    model, batches = randomize_(Block(), seed=2).eval(), images()
    slim = repaired(model, name, batches=batches).model
    inputs = all_of(batches)
    with torch.no_grad():
        tested = slim.eval()(inputs)
        trained = copy.deepcopy(slim).train()(inputs)
        assert torch.allclose(trained, tested, rtol=1e-3, atol=1e-4)
        monkeypatch.setattr(steps, "follow_norms_", lambda _: steps.NOTHING)
        before = repaired(model, name, batches=batches).model
        assert torch.allclose(before(inputs), tested, rtol=1e-4, atol=1e-5)
        apart = (copy.deepcopy(before).train()(inputs) - tested).abs().max()
    assert apart > 100 * (trained - tested).abs().max()


def test_a_norm_without_a_scale_cannot_follow_and_is_counted() -> None:
    model = plain(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 6, 3), nn.BatchNorm2d(6, affine=False),
        nn.ReLU(), nn.Flatten(), nn.Linear(96, 5),
    )  # fmt: skip
    step = repaired(model, "lstsq").report.repair.steps[-1]
    assert step.skipped == {"its batch norm has no scale": 1}


def test_a_norm_before_the_cut_keeps_its_statistics() -> None:
    model = plain(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
        nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    result = repaired(model, "bn", only=["3"], sparsity=0.15)
    kept = torch.tensor(result.plan.slices["3.weight"][0])
    assert torch.equal(result.model[1].running_mean, model[1].running_mean)
    assert torch.equal(result.model[4].running_mean, model[4].running_mean[kept])
    assert not torch.equal(result.model[7].running_mean, model[7].running_mean)
    assert result.report.repair.steps[-1].layers == 1


@pytest.mark.parametrize("bias", [True, False])
def test_compensation_gives_every_channel_its_dense_mean(bias: bool) -> None:
    model = plain(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=bias), nn.BatchNorm2d(6),
        nn.Flatten(), nn.Linear(6 * 16, 5),
    )  # fmt: skip
    result = repaired(model, "bias", only=["0"])
    with torch.no_grad():
        means = [net[:4](all_of(images())).mean((0, 2, 3)) for net in (model, result.model)]
        cut = repaired(model, "bn", only=["0"]).model[:4](all_of(images())).mean((0, 2, 3))
    np.testing.assert_allclose(means[1], means[0], atol=1e-5)
    assert not np.allclose(cut, means[0], atol=1e-2)


def test_a_channel_that_its_norm_silences_keeps_its_weights() -> None:
    model = block()
    with torch.no_grad():
        model.norm2.weight[0] = 0.0
    result = repaired(model, "bias", "lstsq", only=["first"])
    assert all(value.isfinite().all() for value in result.model.state_dict().values())
    kept = torch.tensor(result.plan.slices["first.weight"][0])
    assert torch.equal(result.model.second.weight[0], model.second.weight[0][kept])


def test_a_column_that_is_always_zero_keeps_its_weight() -> None:
    start = torch.tensor([[[1.0], [2.0]]])
    problem = equations.NormalEquations(start, intercept=False)
    rows = torch.tensor([[[1.0, 0.0], [2.0, 0.0]]])
    problem.add(rows, torch.tensor([[[3.0], [6.0]]]))
    found, _ = problem.solve()
    torch.testing.assert_close(found, torch.tensor([[[3.0], [2.0]]], dtype=torch.float64))


# --- the walk ------------------------------------------------------------------------------------


def hooked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Note the place, the images and the bytes kept of every stop of every walk."""
    stops = []
    upto = lockstep.Lockstep.upto

    def watched(self, *names, **options):
        seen = 0
        for values in upto(self, *names, **options):
            seen += len(next(iter(values[0].values())))
            yield values
        kept = sum(lockstep._bytes(one) for values in self.kept for one in values)
        stops.append((names[0], seen, kept))

    monkeypatch.setattr(lockstep.Lockstep, "upto", watched)
    return stops


def test_images_join_the_walk_where_they_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "MEMORY_LIMIT", 200_000)
    monkeypatch.setattr(lockstep, "PIECE", 3 * 8 * 8 * 10)
    stops = hooked(monkeypatch)
    step = repaired(block(), "lstsq", batches=images(400)).report.repair.steps[-1]
    seen = {name: count for name, count, _ in stops}
    # The maps take some kilobytes of every image, what the classifier reads takes a few numbers.
    norms = ["batch_norm", "batch_norm_1"]  # which follow in a walk of their own
    assert list(seen) == ["conv2d_1", "conv2d_2", "linear", *norms]
    assert seen["conv2d_1"] <= seen["conv2d_2"] < seen["linear"] == 400
    assert step.fewest == seen["conv2d_1"] >= 10
    assert max(kept for *_, kept in stops) <= 200_000


@pytest.mark.parametrize("name", ["bn", "bias", "lstsq"])
def test_images_that_joined_late_have_seen_the_repaired_layers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same images again and again, at all positions: whoever joins where is no difference.
    monkeypatch.setattr(equations, "FEWEST", 10_000)
    one = images(16)()
    batches = lambda: one * 12  # noqa: E731 - a source of batches
    whole = repaired(block(), name, batches=batches)
    assert whole.report.repair.steps[-1].fewest == 192
    monkeypatch.setattr(lockstep, "MEMORY_LIMIT", 400_000)
    joined = repaired(block(), name, batches=batches)
    assert joined.report.repair.steps[-1].fewest < 192
    for key, value in whole.model.state_dict().items():
        # The unbiased variance is that of more or of fewer rows.
        close = {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(joined.model.state_dict()[key], value, **close, msg=key)


# --- what comes back -----------------------------------------------------------------------------


def test_the_report_scores_the_network_that_is_returned() -> None:
    model, batches = block(), images()
    result = repaired(model, "bn", "bias", "lstsq")
    steps = result.report.repair.steps
    assert [step.name for step in steps] == ["dense", "cut", "bn", "bias", "lstsq"]
    labels = torch.cat([labels for _, labels in batches()])
    with torch.no_grad():
        for network, step in ((model, steps[0]), (result.model, steps[-1])):
            logits = network(all_of(batches))
            assert step.loss == pytest.approx(float(functional.cross_entropy(logits, labels)))
            assert step.accuracy == pytest.approx(
                float((logits.argmax(1) == labels).float().mean())
            )
    assert result.report.repair.images == 48
    assert result.report.repair.measured == "calibration"
    assert reports.to_json(result.report)["repair"]["steps"][4]["layers"] == steps[4].layers > 0


def test_other_images_are_scored_where_they_are_given() -> None:
    other = images(30)
    found = repaired(block(), "bn", measured_on=other).report.repair
    assert found.measured == "held_out"
    assert found.images == 48


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out, self.fc = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        parts = (layer(self.norm(x)) for layer in (self.query, self.key, self.value))
        heads = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(*heads)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return self.fc(x.mean(1))


def test_what_is_written_into_a_module_with_a_kept_temperature_computes_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(equations.NormalEquations.solve.__kwdefaults__, "ridge", 1e-3)
    model = randomize_(Attention(), seed=2).eval()
    batches = images(shape=(4, 6))
    result = repaired(
        model, "lstsq", batches=batches, example=torch.zeros(2, 4, 6), exclude=["*:heads"]
    )
    labels = torch.cat([labels for _, labels in batches()])
    with torch.no_grad():
        loss = functional.cross_entropy(result.model(all_of(batches)), labels)
    assert result.plan.factors
    assert result.report.repair.steps[-1].loss == pytest.approx(float(loss), rel=1e-5)


def test_a_network_in_graph_mode_is_repaired() -> None:
    class Baked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 5)

        def forward(self, x):
            x = self.first(x).relu()
            return self.second(x.reshape(-1, 8 * 36))

    result = repaired(randomize_(Baked(), seed=1).eval(), "lstsq")
    assert result.plan.mode == "graph"
    labels = torch.cat([labels for _, labels in images()()])
    with torch.no_grad():
        loss = functional.cross_entropy(result.model(all_of(images())), labels)
    assert result.report.repair.steps[-1].loss == pytest.approx(float(loss), rel=1e-5)


def test_the_given_model_and_the_modes_of_both_stay_as_they_were() -> None:
    model = block().train()
    before = copy.deepcopy(model.state_dict())
    result = repaired(model, "bn", "bias", "lstsq")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert result.model.training
    assert all(value.requires_grad for value in result.model.parameters())


def test_layers_that_cannot_be_rebuilt_are_counted() -> None:
    model = plain(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    step = repaired(model, "lstsq").report.repair.steps[-1]
    assert step.skipped == {"conv_transpose2d is not reconstructed": 1}
    assert step.layers == 1


def test_a_layer_that_runs_twice_is_counted_as_left() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.twice, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)

        def forward(self, x):
            x = self.first(x).relu()
            return self.last(self.twice(self.twice(x).relu()).relu())

    model = randomize_(Twice(), seed=1).eval()
    result = repaired(model, "lstsq", batches=images(shape=(6,)), example=torch.zeros(2, 6))
    assert result.report.repair.steps[-1].skipped == {"its weight is used more than once": 2}


def test_a_dry_run_repairs_nothing() -> None:
    assert repaired(block(), "bn", dry_run=True).report.repair is None


# --- refusals ------------------------------------------------------------------------------------


def test_a_repair_without_images_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="looks at images") as raised:
        prunecli.prune(block(), IMAGE, flops=0.5, repair=("bn",))
    assert raised.value.code == "REPAIR_NEEDS_DATA"
    with pytest.raises(InputError, match="no images"):
        repaired(block(), "bn", batches=list)


def test_a_repair_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean 'lstsq'"):
        repaired(block(), "lstq")


def test_a_network_with_two_inputs_is_refused() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 5)

        def forward(self, x, y):
            return self.out(self.one(x).relu() + self.two(y).relu())

    model = randomize_(Two(), seed=1).eval()
    with pytest.raises(GraphError, match="2 inputs"):
        repaired(model, "bn", example=(torch.zeros(2, 6), torch.zeros(2, 6)))


def test_a_network_that_is_no_classifier_is_refused() -> None:
    model = plain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3))
    with pytest.raises(InputError, match=r"first output is \[20, 5, 4, 4\]"):
        repaired(model, "lstsq")


# --- on screen -----------------------------------------------------------------------------------


def test_the_steps_are_shown_with_what_was_left(tmp_path: Path) -> None:
    steps = (
        reports.RepairStep("dense", 0.44, 0.867),
        reports.RepairStep("cut", 13.5, 0.133),
        reports.RepairStep("lstsq", 1.6, 0.699, 10.4, 20, {"conv3d is not reconstructed": 2}),
    )
    found = dataclasses.replace(
        fake_verbs.prune_report(tmp_path / "a.pt"),
        repair=reports.RepairReport(steps, 256, "held_out"),
    )
    console = Console(width=80, record=True, file=io.StringIO())
    for part in view(found, rows=None):
        console.print(part)
    text = " ".join(console.export_text().split())
    assert "dense 0.4400 86.7 %" in text
    assert "lstsq 1.6000 69.9 % 20 10.4 2: conv3d is not reconstructed" in text
    assert "repaired on 256 training images, scored on images held out from training" in text


def test_the_command_line_hands_the_repairs_on(monkeypatch, tmp_path, capsys) -> None:
    fake = fake_verbs.FakeVerbs()
    monkeypatch.setitem(sys.modules, "prunecli.verbs", fake)
    monkeypatch.setattr(prunecli, "verbs", fake, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pt").write_bytes(b"weights")
    words = ["prune", "m.pt", "--flops", "0.5", "--repair", "bn, lstsq", "--data", "digits"]
    assert main(words) == 0
    (_, options), *_ = fake.calls
    assert options["options"].repair == ("bn", "lstsq")


def test_prune_repairs_a_file_on_training_images_and_scores_held_out_ones(tmp_path: Path) -> None:
    model = Path(prunecli.__file__).parents[1] / "sample_models" / "digits_vgg.safetensors"
    found = verbs.prune(
        model,
        output=tmp_path / "slim.pt",
        budget=make_budget(flops=0.3),
        options=PruneOptions(repair=("lstsq",), limit=400),
        data="digits",
    )
    dense, cut, last = found.repair.steps
    assert found.repair.measured == "held_out"
    assert found.repair.images == 400
    assert cut.accuracy < last.accuracy
    assert last.accuracy > dense.accuracy - 0.1
    spec = provenance.read(tmp_path / "slim.pt").checkpoint.input
    held_out = load_split(open_source("digits"), "held_out", input=spec, limit=400)
    scored = evaluate(prunecli.load(tmp_path / "slim.pt"), held_out, input=spec)
    assert scored.accuracy == pytest.approx(last.accuracy)
