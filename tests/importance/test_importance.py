"""How important layers are: references of a few lines, and real networks on real images."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional

import prunecli
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.data import load_split, open_source
from prunecli.errors import InputError
from prunecli.importance import (
    IMPORTANCES,
    Measured,
    agreements,
    check_importance,
    chosen_importance,
    measure_importance,
    uses_images,
)
from prunecli.importance.probe import RIDGE, probe_error
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.verbs.images import normalised
from tests.support.weights import randomize_

# What the classes differ in is the contrast, which the mean of an image does not tell.
LABELS = torch.arange(160) * 7 % 11 % 3
IMAGES = torch.randn(160, 3, 6, 6, generator=torch.Generator().manual_seed(0))
IMAGES = IMAGES * (1 + LABELS[:, None, None, None])


def batches():
    yield IMAGES[:90], LABELS[:90]
    yield IMAGES[90:], LABELS[90:]


class Residual(nn.Module):
    """A stem, a block with a shortcut, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first, self.second = nn.Conv2d(8, 10, 3, padding=1), nn.Conv2d(10, 8, 1)
        self.fc = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (x + self.second(self.first(x).relu())).relu()
        return self.fc(x.mean((2, 3)))


def trained() -> nn.Module:
    """Return a residual network that has seen the images for a moment."""
    model = randomize_(Residual())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()
    return model.eval()


def measured(model: nn.Module | None = None, *, data=batches, example=IMAGES[:2]) -> Measured:
    network = read_network(model or trained(), [example])
    saliency = np.random.default_rng(0).random(network.coupling.atom_count)
    return Measured(network, saliency, data)


# --- weight energy -------------------------------------------------------------------------------


def test_energy_is_the_mean_squared_weight_of_what_makes_a_group_with_batch_norm_folded() -> None:
    case = measured()
    model = case.network.model
    model.requires_grad_(requires_grad=False)
    scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    stem = (model.stem.weight * scale[:, None, None, None]).square()
    second = model.second.weight.square()
    stream = (stem.sum() + second.sum()) / (stem.numel() + second.numel())
    first = model.first.weight.square().mean()
    found = dict(zip((g.name for g in case.network.coupling.groups),
                     measure_importance("energy", case), strict=True))  # fmt: skip
    assert found == pytest.approx({"stem": float(stream), "first": float(first)}, rel=1e-5)


def test_energy_does_not_depend_on_how_a_factor_is_split_between_a_layer_and_its_norm() -> None:
    model = randomize_(Residual()).eval()
    before = measure_importance("energy", measured(copy.deepcopy(model)))
    with torch.no_grad():
        for value in (model.stem.weight, model.stem.bias, model.norm.running_mean):
            value.mul_(7)
        model.norm.running_var.mul_(49).add_(48 * model.norm.eps)
    assert measure_importance("energy", measured(model)) == pytest.approx(before, rel=1e-3)


def test_a_weight_that_makes_two_groups_is_counted_for_each_by_its_own_rows() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.left, self.right = nn.Linear(3, 9), nn.Linear(4, 2), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.both(x).split([4, 5], 1)
            return self.left(left.relu()) + self.right(right.sigmoid())

    case = measured(randomize_(Two()).eval(), example=torch.zeros(2, 3))
    weight = case.network.model.both.weight.detach().square()
    expected = [float(weight[:4].mean()), float(weight[4:].mean())]
    assert measure_importance("energy", case) == pytest.approx(expected)


# --- sensitivity ---------------------------------------------------------------------------------


def test_sensitivity_is_the_rise_of_the_loss_when_a_group_alone_is_zeroed_to_a_fifth() -> None:
    case = measured()
    model = case.network.model
    dense = functional.cross_entropy(model(IMAGES), LABELS)
    expected = []
    for group, width in zip(case.network.coupling.groups, (8, 10), strict=True):
        order = np.argsort(case.saliency[group.atoms])
        gone = torch.as_tensor(order[: width - round(0.2 * width)].copy())
        masked = copy.deepcopy(model)
        with torch.no_grad():
            # the shortcut carries the stem's channels on to what reads the sum
            readers = [masked.first, masked.fc] if group.name == "stem" else [masked.second]
            for layer in readers:
                layer.weight[:, gone] = 0
        expected.append(float((functional.cross_entropy(masked(IMAGES), LABELS) - dense).detach()))
    assert max(expected) > 0
    expected = np.maximum(expected, 0.01 * max(expected))
    assert measure_importance("sensitivity", case) == pytest.approx(expected, rel=1e-4)


def test_a_loss_that_does_not_rise_tells_nothing() -> None:
    model = randomize_(Residual()).eval()
    with torch.no_grad():
        model.fc.weight.zero_()
    with pytest.raises(InputError, match="the loss does not rise"):
        measure_importance("sensitivity", measured(model))


# --- probe gain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 200])
def test_the_probe_is_ridge_regression_on_standardised_features(count: int) -> None:
    features = torch.randn(160, count, generator=torch.Generator().manual_seed(1))
    features[:, 0] = LABELS + 0.2 * features[:, 0]
    fit = torch.arange(160) % 2 == 0
    inside, outside = features[fit].double().numpy(), features[~fit].double().numpy()
    scale = inside.std(0)
    classes = np.eye(int(LABELS.max()) + 1)[LABELS.numpy()]
    model = Ridge(alpha=RIDGE * len(inside)).fit(
        (inside - inside.mean(0)) / scale, classes[fit.numpy()]
    )
    guesses = model.predict((outside - inside.mean(0)) / scale).argmax(1)
    expected = (guesses != LABELS[~fit].numpy()).mean()
    assert probe_error(features, LABELS, fit) == pytest.approx(expected)


def test_the_gain_of_a_chain_is_the_fall_of_the_error_from_layer_to_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 6),
    ).eval()  # fmt: skip
    fit = torch.arange(160) % 2 == 0
    with torch.no_grad():
        errors = [
            probe_error(model[:depth](IMAGES).flatten(2).mean(2), LABELS, fit)
            for depth in (0, 2, 5)
        ]
    least = np.minimum.accumulate(errors)
    assert least[-1] < least[0]
    expected = np.maximum(-np.diff(least), 0.01 * (least[0] - least[-1]))
    assert measure_importance("probe", measured(model)) == pytest.approx(expected)


def test_all_gains_together_are_the_fall_of_the_whole_network() -> None:
    case = measured()
    found = measure_importance("probe", case)
    assert found.shape == (2,)
    assert (found > 0).all()


def test_a_probe_that_learns_nothing_says_so() -> None:
    def unlearnable():
        labels = torch.randint(0, 2, (8,), generator=torch.Generator().manual_seed(3))
        yield torch.zeros(8, 3, 6, 6), labels

    with pytest.raises(InputError, match="no probe is better than that of the input"):
        measure_importance("probe", measured(data=unlearnable))


def test_rows_that_are_windows_of_an_image_are_averaged_for_it() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(3, 8), nn.Linear(8, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x.flatten(2).transpose(1, 2)).reshape(-1, 4, 8)  # [images * 9, 4, 8]
            return self.head(x.relu()).reshape(-1, 36, 6).mean(1)

    case = measured(randomize_(Windows()).eval())
    model = case.network.model
    with torch.no_grad():
        pooled = model.stem(IMAGES.flatten(2).transpose(1, 2)).relu().mean(1)
    fit = torch.arange(160) % 2 == 0
    start = probe_error(IMAGES.mean((2, 3)), LABELS, fit)
    expected = start - probe_error(pooled, LABELS, fit)
    assert expected > 0
    assert measure_importance("probe", case) == pytest.approx([expected])


@pytest.mark.parametrize("name", ["probe", "sensitivity"])
def test_no_images_at_all_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="no images"):
        measure_importance(name, measured(data=lambda: iter(())))


# --- choosing one --------------------------------------------------------------------------------


def test_without_a_name_images_bring_the_probe_and_weights_alone_the_energy() -> None:
    options = PruneOptions(allocation="inverse-importance")
    assert chosen_importance(options, data=True) == "probe"
    assert chosen_importance(options, data=False) == "energy"
    assert chosen_importance(PruneOptions(), data=True) is None
    assert uses_images(options, data=True)
    assert not uses_images(options, data=False)
    assert not uses_images(PruneOptions(), data=True)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (PruneOptions(importance="porbe", allocation="inverse-importance"), "UNKNOWN_IMPORTANCE"),
        (PruneOptions(importance="probe", allocation="inverse-importance"),
         "IMPORTANCE_NEEDS_DATA"),
    ],
)  # fmt: skip
def test_an_importance_that_cannot_be_had_is_refused_before_any_work(options, code: str) -> None:
    with pytest.raises(InputError) as caught:
        check_importance(options, None)
    assert caught.value.code == code


def test_agreement_is_the_rank_correlation_over_what_both_see() -> None:
    found = {"a": np.asarray([1.0, 2, 3, np.nan]), "b": np.asarray([3.0, 2, 1, 5]),
             "c": np.asarray([1.0, 5, 9, 9])}  # fmt: skip
    assert agreements(found)["a, b"] == -1
    assert agreements(found)["a, c"] == 1


@pytest.mark.parametrize("rule", ["inverse-importance", "proportional-importance"])
@pytest.mark.parametrize("name", [None, *IMPORTANCES.names()])
def test_a_network_is_cut_by_the_importance_of_its_layers(rule: str, name: str | None) -> None:
    model = trained()
    result = prunecli.prune(
        model, IMAGES[:2], flops=0.5, align=1, allocation=rule, importance=name, batches=batches
    )
    report = result.report
    assert report.cost.kept["flops"] <= 0.5
    assert report.importance == (name or "probe")
    expected = measure_importance(report.importance, measured(model))
    if report.importance != "sensitivity":  # whose saliencies are those of the signal
        assert [group.importance for group in report.groups] == pytest.approx(expected)


def test_analyze_reports_every_importance_and_how_they_agree() -> None:
    model = trained()
    report = prunecli.analyze(model, IMAGES[:2], importance=True, batches=batches).importance
    assert set(report.groups) == set(IMPORTANCES.names())
    assert report.images == 160
    assert len(report.agreement) == 3
    with pytest.raises(InputError, match="measured on images"):
        prunecli.analyze(model, IMAGES[:2], importance=True)


def test_the_importances_of_a_real_network_are_those_of_its_layers(shared_dir, cifar_dir) -> None:
    checkpoint = read(shared_dir / "checkpoints" / "resnet20.th").checkpoint
    images = load_split(open_source(str(cifar_dir)), "train", input=checkpoint.input, limit=256)
    network = read_network(instantiate(checkpoint), [torch.zeros(1, 3, 32, 32)])
    saliency = np.ones(network.coupling.atom_count)
    case = Measured(network, saliency, lambda: normalised(images, checkpoint.input))
    found = {name: measure_importance(name, case) for name in IMPORTANCES.names()}
    for values in found.values():
        assert values.shape == (12,)
        assert (values > 0).all()
    names = [group.name for group in network.coupling.groups]
    # the stem's stream brings most of what the input alone does not tell
    assert found["probe"].argmax() == names.index("conv1")
    assert all(-1 <= value <= 1 for value in agreements(found).values())
