"""What `prune` takes for what nobody gave: the recipe with images, and else the plain defaults."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.errors import GateError, GraphError
from prunecli.methods import default_recipe
from prunecli.methods.auto import Better, method_for
from prunecli.methods.default_recipe import choose
from prunecli.options import PruneOptions, TrainingOptions
from prunecli.options.declare import assembled
from prunecli.report import to_json
from prunecli_cli.main import main
from tests.support.samples import VGG
from tests.support.training import same
from tests.support.weights import randomize_

HALF = make_budget(flops=0.5)
IMAGES = torch.zeros(2, 3, 8, 8)
PLAIN = ("l1", "uniform", ())
TAKEN = ("reconstruction", "greedy", ("lstsq",))


def batches(shape: tuple[int, ...] = (3, 8, 8), labels: tuple[int, ...] = ()):
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(48, *shape, generator=generator)
    classes = torch.randint(0, 5, (48, *labels), generator=generator)
    return lambda: list(zip(pixels.split(16), classes.split(16), strict=True))


def unread():
    raise AssertionError("images were looked at")


class Two(nn.Module):
    """Two layers that a cut can narrow, and a classifier."""

    def __init__(self, padding: int | str = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=padding)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.second(self.first(x).relu()).relu().mean((2, 3)))


class TwoInputs(Two):
    def forward(self, x, y):
        return super().forward(x + y)


class Maps(Two):
    """Classes at every position, as in a segmentation."""

    def forward(self, x):
        found = self.second(self.first(x).relu()).relu()
        return functional.linear(found.movedim(1, -1), self.fc.weight).movedim(-1, 1)


def network(kind: type[nn.Module] = Two, **arguments) -> nn.Module:
    return randomize_(kind(**arguments), seed=2).eval()


def taken(options: PruneOptions) -> tuple[str, str, tuple[str, ...]]:
    return options.signal, options.allocation, options.repair


# --- the pure function ---------------------------------------------------------------------------


def test_with_images_the_recipe_is_taken_and_without_the_plain_defaults():
    found = choose(PruneOptions(min_width=2), HALF, images=True)
    assert taken(found.options) == TAKEN
    assert (found.options.min_width, found.options.limit) == (2, 1024)
    assert found.choice.why == "default with images"
    without = choose(PruneOptions(), HALF, images=False)
    assert taken(without.options) == PLAIN
    assert without.choice.why == "default without images"


@pytest.mark.parametrize(
    "named",
    [{"signal": "l1"}, {"allocation": "uniform"}, {"repair": ()}, {"repair": ("none",)}],
)
def test_one_that_is_named_leaves_the_others_plain_even_at_its_default(named):
    found = choose(PruneOptions(**named), HALF, images=True)
    assert taken(found.options) == PLAIN
    assert found.choice.why == "named"


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        (PruneOptions(dead=True), make_budget(needed=False)),
        (PruneOptions(), make_budget(latency=0.5)),
        (PruneOptions(aggregate="mean"), HALF),
        (PruneOptions(granularity="weight"), make_budget(sparsity=0.5)),
        (PruneOptions(granularity="2:4"), None),
    ],
)
def test_what_the_recipe_was_not_made_for_keeps_the_plain_defaults(options, budget):
    found = choose(options, budget, images=True)
    assert taken(found.options) == PLAIN
    assert found.choice.why != "default with images"


@pytest.mark.parametrize("method", ["iterative", "bar", "slimming"])
def test_methods_that_train_keep_their_own_defaults(method):
    options = PruneOptions(method=method)
    assert choose(options, HALF, images=True).options == options


def test_dead_channels_go_before_the_recipe_where_there_is_a_budget_too():
    assert taken(choose(PruneOptions(dead=True), HALF, images=True).options) == TAKEN


def test_a_limit_that_nobody_gave_is_still_known_as_such_after_the_recipe():
    found = choose(PruneOptions(), HALF, images=True)
    assert "limit" in found.options.followed
    assert "limit" not in choose(PruneOptions(limit=9), HALF, images=True).options.followed


def test_a_word_for_no_repair_is_no_repair():
    assert PruneOptions(repair=("none",)).repair == ()
    assert assembled(PruneOptions, {"repair": "none"}).repair == ()


# --- which method --------------------------------------------------------------------------------


def test_the_method_of_most_epochs_that_applies_counts():
    table = [Better(3, 0.4, "gates"), Better(5, 0.4, "bar")]
    found = [method_for(epochs, 0.4, table) for epochs in (None, 2, 3, 4, 5, 50)]
    assert found == ["one-shot", "one-shot", "gates", "gates", "bar", "bar"]
    assert method_for(50, 0.5, table) == "one-shot"
    assert method_for(50, None, table) == "one-shot"


def test_until_something_else_is_measured_every_number_of_epochs_is_one_shot():
    assert {method_for(epochs, kept) for epochs in (1, 10, 500) for kept in (0.1, 0.9)} == {
        "one-shot"
    }


@pytest.mark.parametrize("asked", [{}, {"method": "auto"}])
def test_a_method_that_nobody_named_is_chosen_by_the_epochs(asked, monkeypatch):
    def bar(epochs, kept):
        assert (epochs, kept) == (7, 0.5)
        return "bar"

    monkeypatch.setattr(default_recipe, "method_for", bar)
    options = PruneOptions(training=TrainingOptions(epochs=7), **asked)
    found = choose(options, HALF, images=True)
    assert (found.options.method, found.options.signal) == ("bar", "taylor")
    assert found.choice.why_method == "default with 7 epochs: measured to be better there"
    named = choose(PruneOptions(method="one-shot", training=options.training), HALF, images=True)
    assert (named.options.method, named.choice.why_method) == ("one-shot", "named")


def test_what_only_a_one_shot_cut_can_do_is_never_given_to_another_method(monkeypatch):
    monkeypatch.setattr(default_recipe, "method_for", lambda *_: "bar")
    own = TrainingOptions(epochs=7)
    for options, budget in (
        (PruneOptions(dead=True, training=own), HALF),
        (PruneOptions(training=own), make_budget(latency=0.5)),
    ):
        assert choose(options, budget, images=True).options.method == "one-shot"


# --- what comes of it ----------------------------------------------------------------------------


def test_the_default_is_the_same_cut_as_the_recipe_in_full():
    model, images = network(), batches()
    found = prunecli.prune(model, IMAGES, flops=0.5, batches=images)
    in_full = prunecli.prune(
        model, IMAGES, flops=0.5, batches=images, signal="reconstruction", allocation="greedy",
        repair=("lstsq",),
    )  # fmt: skip
    assert same(found.model, in_full.model)
    assert found.plan == in_full.plan
    assert (found.report.choice.why, in_full.report.choice.why) == ("default with images", "named")
    assert found.report.choice.repair == ("lstsq",)


def test_what_people_wrote_before_does_what_it_did():
    model = network()
    images = prunecli.prune(model, IMAGES, flops=0.5, signal="l1", batches=batches())
    none = prunecli.prune(model, IMAGES, flops=0.5)
    assert same(images.model, none.model)
    assert images.report.repair is None


@pytest.mark.parametrize(
    ("kind", "arguments", "example", "images", "reason"),
    [
        (TwoInputs, {}, [IMAGES, IMAGES], batches(), "2 inputs cannot be repaired"),
        (Maps, {}, IMAGES, batches(labels=(8, 8)), "loss and accuracy need logits"),
    ],
)
def test_where_the_recipe_does_not_work_the_plain_defaults_are_taken_and_said(
    kind, arguments, example, images, reason
):
    model = network(kind, **arguments)
    found = prunecli.prune(model, example, flops=0.5, batches=images)
    plain = prunecli.prune(model, example, flops=0.5)
    assert same(found.model, plain.model)
    assert found.report.signal == "l1"
    assert found.report.choice.repair == ()
    (said,) = (item for item in found.report.warnings if reason in item)
    assert said.startswith("l1, uniform instead of reconstruction, greedy, lstsq: ")


def test_a_budget_that_the_signal_cannot_reach_is_reached_by_the_plain_defaults(monkeypatch):
    from prunecli.signals import reconstruction

    # As if a layer were of a kind that cannot be refitted: its input stays whole.
    readers = reconstruction.readers_of
    monkeypatch.setattr(
        reconstruction, "readers_of", lambda *a: [r for r in readers(*a) if "fc" in r.name]
    )
    model = network()
    found = prunecli.prune(model, IMAGES, flops=0.2, batches=batches())
    assert found.report.cost.kept["flops"] <= 0.2
    assert (found.report.signal, found.report.repair) == ("l1", None)
    assert any("instead of reconstruction" in item for item in found.report.warnings)


def test_a_file_is_cut_by_the_recipe_and_says_so(tmp_path, capsys):
    out = tmp_path / "cut.pt"
    words = ["prune", str(VGG), "--flops", "0.5", "--data", "digits", "--limit", "60"]
    assert main([*words, "--out", str(out)]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "removed by reconstruction, greedy, lstsq (default with images)" in told
    named = verbs.prune(
        VGG, output=tmp_path / "named.pt", budget=HALF, data="digits",
        options=PruneOptions(limit=60, **dict(zip(("signal", "allocation", "repair"), TAKEN,
                                                  strict=True))),
    )  # fmt: skip
    cut, full = prunecli.load(out), prunecli.load(tmp_path / "named.pt")
    assert same(cut, full)
    assert to_json(named)["choice"] == {
        "method": "one-shot",
        "why_method": "default without training",
        "repair": ["lstsq"],
        "why": "named",
    }


def test_without_images_it_says_that_there_were_none(tmp_path, capsys):
    assert main(["prune", str(VGG), "--flops", "0.5", "--out", str(tmp_path / "cut.pt")]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "removed by l1, uniform (default without images)" in told


@pytest.mark.parametrize("signal", ["reconstruction", "taylor"])
def test_a_budget_below_what_can_be_reached_is_refused_before_images_are_looked_at(signal):
    with pytest.raises(GateError, match="lowest"):
        prunecli.prune(network(), IMAGES, flops=1e-6, signal=signal, batches=unread)


def test_the_same_holds_for_the_default_with_images():
    with pytest.raises(GateError) as caught:
        prunecli.prune(network(), IMAGES, flops=1e-6, batches=unread)
    assert caught.value.code == "INFEASIBLE_BUDGET"


@pytest.mark.parametrize("choices", [{}, {"signal": "taylor"}])
def test_a_network_with_nothing_to_cut_is_refused_before_images_are_looked_at(choices):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(GraphError) as caught:
        prunecli.prune(model, IMAGES, flops=0.5, batches=unread, **choices)
    assert caught.value.code == "NOTHING_TO_CUT"


def test_a_network_with_nothing_to_cut_is_not_trained_by_any_method(monkeypatch):
    from prunecli.architectures.reference import InputSpec
    from prunecli.methods import road

    monkeypatch.setattr(road, "load_images", lambda *_, **__: pytest.fail("images were read"))
    spec = InputSpec(1, 8, 8, (0.0,), (1.0,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for method in ("bar", "iterative"):
        with pytest.raises(GraphError) as caught:
            prunecli.prune(
                model, torch.zeros(2, 1, 8, 8), flops=0.5, method=method, data="digits", input=spec
            )
        assert caught.value.code == "NOTHING_TO_CUT"
