"""Trials: the score of a cut without a proof is that of the cut that is proven."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunecli.budget import make_budget
from prunecli.errors import GraphError, InputError
from prunecli.evaluation.batches import Images
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.road import prune_network
from prunecli.pruning.scoring import score_network
from prunecli.pruning.trial import calibrated_score, cut_to, dense_trial, kept_at, try_cut
from tests.support.samples import images, sample

OPTIONS = PruneOptions(signal="l2", align=1)


def by_hand(model: nn.Module, batches) -> tuple[float, float]:
    """Return loss and accuracy over all images at once."""
    pixels, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    with torch.no_grad():
        logits = model.eval()(pixels)
    right = (logits.argmax(1) == labels).double().mean()
    return float(functional.cross_entropy(logits, labels)), float(right)


@pytest.mark.parametrize("name", ["digits_vgg", "digits_resnet", "digits_mobilenet"])
@pytest.mark.parametrize("allocation", ["uniform", "greedy"])
def test_a_trial_scores_what_the_proven_cut_scores(name, allocation):
    model, batches = sample(name), images()
    options = dataclasses.replace(OPTIONS, allocation=allocation)
    budget = make_budget(flops=0.5)
    network = read_network(model, [torch.randn(2, 1, 8, 8)])
    tried = try_cut(
        network,
        score_network(network, options),
        budget=budget,
        options=options,
        images=Images(measured_on=batches),
    )
    result = prune_network(network, budget=budget, options=options)
    loss, accuracy = by_hand(result.model, batches)
    assert tried.score.loss == pytest.approx(loss, rel=1e-5)
    assert tried.score.accuracy == accuracy
    assert tried.kept == pytest.approx(result.report.cost.kept)
    assert tried.budget == {"flops": {"fraction": 0.5}}


def test_a_trial_with_a_repair_scores_what_the_repaired_cut_scores():
    model, batches = sample("digits_resnet"), images(96)
    options = dataclasses.replace(OPTIONS, repair=("bn", "lstsq"))
    budget = make_budget(flops=0.5)
    network = read_network(model, [torch.randn(2, 1, 8, 8)])
    tried = try_cut(
        network,
        score_network(network, options),
        budget=budget,
        options=options,
        images=Images(batches, batches),
    )
    result = prune_network(network, budget=budget, options=options, images=Images(batches))
    loss, accuracy = by_hand(result.model, batches)
    assert tried.final is tried.repaired is not tried.score
    assert tried.final.loss == pytest.approx(loss, rel=1e-4)
    assert tried.final.accuracy == pytest.approx(accuracy)
    assert tried.score.loss == pytest.approx(result.report.repair.steps[1].loss, rel=1e-4)


def test_a_trial_leaves_the_network_that_was_read_as_it_was():
    model = sample("digits_vgg")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = read_network(model, [torch.randn(2, 1, 8, 8)])
    options = dataclasses.replace(OPTIONS, repair=("lstsq",))
    saliency = score_network(network, options)
    tries = [
        try_cut(
            network,
            saliency,
            budget=make_budget(flops=0.4),
            options=options,
            images=Images(images(), images()),
        )
        for _ in range(2)
    ]
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert tries[0].repaired == tries[1].repaired


def test_the_dense_trial_is_the_network_itself():
    model, batches = sample("digits_resnet"), images()
    network = read_network(model, [torch.randn(2, 1, 8, 8)])
    tried = dense_trial(network, batches)
    loss, accuracy = by_hand(model, batches)
    assert tried.score.loss == pytest.approx(loss, rel=1e-5)
    assert tried.score.accuracy == accuracy
    assert set(tried.kept.values()) == {1.0}


def test_any_mask_can_be_scored():
    model, batches = sample("digits_vgg"), images()
    network = read_network(model, [torch.randn(2, 1, 8, 8)])
    saliency = score_network(network, OPTIONS)
    widths = np.maximum(network.cost.dense_widths // 2, 1)
    keep, kept = kept_at(network, saliency, widths)
    slim = cut_to(network, keep)
    assert int(keep.sum()) == int(widths.sum())
    assert calibrated_score(slim, batches).images == 40
    assert kept["params"] == pytest.approx(
        sum(value.numel() for value in slim.parameters())
        / sum(value.numel() for value in model.parameters())
    )


def test_a_budget_out_of_reach_is_a_trial_with_the_lowest_reachable_and_no_score():
    network = read_network(sample("digits_vgg"), [torch.randn(2, 1, 8, 8)])
    options = dataclasses.replace(OPTIONS, min_width=6)
    tried = try_cut(
        network,
        score_network(network, options),
        budget=make_budget(flops=0.001),
        options=options,
        images=Images(measured_on=images()),
    )
    assert tried.score is None
    assert tried.final is None
    assert "the lowest reachable is" in tried.problem


def test_what_is_no_classifier_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with pytest.raises(InputError, match="logits") as caught:
        calibrated_score(model, images())
    assert caught.value.code == "NOT_A_CLASSIFIER"


def test_more_classes_than_the_network_tells_apart_are_refused():
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 2, 3]))]
    with pytest.raises(InputError, match="a label is 3") as caught:
        calibrated_score(nn.Identity(), lambda: batches)
    assert caught.value.code == "CLASS_COUNT_MISMATCH"


def test_no_images_are_refused():
    with pytest.raises(InputError, match="no images") as caught:
        calibrated_score(nn.Identity(), list)
    assert caught.value.code == "NO_IMAGES"


class Forked(nn.Module):
    """A network that follows its values: it can only be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x).relu()
        return self.second(x) if x.sum() > 0 else self.second(x) + 1


def test_a_recorded_network_cannot_be_tried_and_the_reason_is_given():
    network = read_network(Forked(), [torch.randn(2, 6)])
    with pytest.raises(GraphError, match="recorded") as caught:
        dense_trial(network, images(shape=(6,)))
    assert caught.value.code == "RECORDED_ONLY"
