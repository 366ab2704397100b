"""The signal `auto`: every candidate is tried at the budget, the best on held-out images is cut."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

import prunecli
from prunecli import verbs
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.errors import GateError, InputError
from prunecli.options import LoadOptions, PruneOptions
from prunecli.pruning.search import asked_signals, least_loss, search_warnings
from prunecli.pruning.trial import calibrated_score
from prunecli.report import Score, SearchReport, Trial
from prunecli.signals import PRESETS
from prunecli.signals.score import Adjusted
from prunecli.verbs.images import normalised
from tests.support.samples import VGG, images, sample

IMAGE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def scored(signal: str, calibrated: float, *, repaired: float | None = None) -> Trial:
    score = Score(2 * calibrated, 0.5, calibrated, 8)
    after = None if repaired is None else Score(2 * repaired, 0.5, repaired, 8)
    return Trial(signal, "uniform", 0, {}, {}, score, after)


@pytest.fixture
def planted():
    """Register Taylor upside down: a signal that keeps the worst channels."""
    PRESETS.add(
        "worst-first",
        Adjusted("activation/taylor/abs-sum/l1", lambda saliency, _: -saliency),
        summary="planted",
    )
    yield "worst-first"
    del PRESETS._entries["worst-first"]


def auto(*candidates: str, **options) -> PruneOptions:
    return PruneOptions(signal="auto", candidates=candidates, limit=200, **options)


def test_the_candidate_with_the_least_loss_is_the_one_that_is_cut(planted, tmp_path):
    written = tmp_path / "slim.pt"
    report = verbs.prune(
        VGG,
        output=written,
        budget=make_budget(flops=0.6),
        options=auto(planted, "taylor-share"),
        data="digits",
    )
    found = report.candidates
    assert [trial.signal for trial in found.trials] == [planted, "taylor-share", "random"]
    losses = {trial.signal: trial.final.calibrated for trial in found.trials}
    assert min(losses, key=losses.get) == "taylor-share"
    assert found.chosen == report.signal == report.plan["signal"] == "taylor-share"
    assert losses[planted] > 2 * losses["taylor-share"]
    assert found.measured == "held_out"
    assert report.warnings == ()
    # What was written scores on the held-out images as its trial did.
    checkpoint = read(VGG, LoadOptions()).checkpoint
    held_out = load_split(open_source("digits"), "held_out", input=checkpoint.input, limit=200)
    score = calibrated_score(prunecli.load(written), lambda: normalised(held_out, checkpoint.input))
    trial = next(trial for trial in found.trials if trial.signal == "taylor-share")
    assert score.loss == pytest.approx(trial.score.loss, rel=1e-4)
    assert found.images == trial.score.images == score.images == len(held_out)


def test_where_random_does_best_it_is_cut_and_a_warning_has_the_numbers(planted):
    report = verbs.prune(
        VGG,
        budget=make_budget(flops=0.5),
        options=auto(planted),
        data="digits",
        dry_run=True,
    )
    assert report.candidates.chosen == report.signal == "random"
    (warning,) = report.warnings
    by_name = {trial.signal: trial.final.calibrated for trial in report.candidates.trials}
    assert f"random has a calibrated loss of {by_name['random']:.4f}" in warning
    assert f"{planted} has a calibrated loss of {by_name[planted]:.4f}" in warning


def test_without_held_out_images_the_same_ones_are_measured_on_and_a_warning_says_so():
    result = prunecli.prune(
        sample("digits_resnet"),
        IMAGE,
        flops=0.6,
        signal="auto",
        candidates=["l1", "l2"],
        batches=images(),
        dry_run=True,
    )
    assert result.report.candidates.measured == "calibration"
    assert any("because there were no others" in warning for warning in result.report.warnings)


def test_candidates_are_compared_after_the_repair_where_one_is_asked_for():
    result = prunecli.prune(
        sample("digits_resnet"),
        IMAGE,
        flops=0.6,
        signal="auto",
        candidates=["l1", "l2"],
        repair=["bn"],
        batches=images(96),
        measured_on=images(40),
        dry_run=True,
    )
    found = result.report.candidates
    assert all(trial.repaired is not None for trial in found.trials)
    best = min(found.trials, key=lambda trial: trial.repaired.calibrated)
    assert found.chosen == best.signal


def test_the_best_is_that_of_the_last_score_and_ignores_what_has_none():
    problem = dataclasses.replace(scored("d", 0.0), score=None, problem="out of reach")
    trials = [scored("a", 0.1, repaired=0.9), scored("b", 0.5, repaired=0.3), problem]
    assert least_loss(trials).signal == "b"
    assert least_loss([scored("a", float("nan")), scored("b", 9.0)]).signal == "b"
    assert least_loss([problem]) is None


def test_the_calibrated_loss_is_the_least_over_one_factor_on_the_logits():
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(400, 10, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    factor = torch.zeros((), requires_grad=True)  # the logarithm of the temperature
    search = torch.optim.LBFGS([factor], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        value = functional.cross_entropy(logits * (-factor).exp(), labels)
        value.backward()
        return value

    search.step(loss)
    for scale in (0.3, 1.0, 40.0):
        score = calibrated_score(_Times(scale), lambda: [(logits[:150], labels[:150]),
                                                 (logits[150:], labels[150:])])  # fmt: skip
        assert score.loss == pytest.approx(
            functional.cross_entropy(scale * logits, labels).item(), rel=1e-5
        )
        assert score.calibrated == pytest.approx(loss().item(), rel=5e-3)


class _Times(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_random_is_always_tried_and_no_signal_twice():
    assert asked_signals(auto("l1", "l1", "taylor")) == ("l1", "taylor", "random")
    assert asked_signals(auto("random", "l1")) == ("random", "l1")
    assert asked_signals(auto())[-1] == "random"
    assert asked_signals(PruneOptions(signal="l1")) == ("l1",)


def test_every_signal_that_is_tried_by_default_exists():
    assert all(name in PRESETS for name in asked_signals(auto()))


@pytest.mark.parametrize(
    ("options", "data", "code"),
    [
        (auto("l1"), None, "SIGNAL_NEEDS_DATA"),
        (auto("random"), "digits", "BAD_OPTION"),
        (auto("auto", "l1"), "digits", "BAD_OPTION"),
        (PruneOptions(signal="l1", candidates=("l2",)), "digits", "OPTION_WITHOUT_EFFECT"),
        (auto("no-such-signal"), "digits", "UNKNOWN_SIGNAL"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused_before_any_work(options, data, code):
    with pytest.raises(InputError) as caught:
        verbs.prune(VGG, budget=make_budget(flops=0.5), options=options, data=data, dry_run=True)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_budget_that_no_candidate_reaches_is_infeasible_with_the_lowest_reachable():
    with pytest.raises(GateError, match="the lowest reachable is") as caught:
        verbs.prune(
            VGG,
            budget=make_budget(flops=0.01),
            options=auto("l1", min_width=8),
            data="digits",
            dry_run=True,
        )
    assert caught.value.code == "INFEASIBLE_BUDGET"
    assert "what stays whatever is cut: " in caught.value.where


def test_what_a_search_costs_is_said_before_it_starts():
    steps = []
    verbs.prune(
        VGG,
        budget=make_budget(flops=0.5),
        options=auto("l1"),
        data="digits",
        dry_run=True,
        progress=steps.append,
    )
    tries = [step for step in steps if step.stage == "try 2 signals"]
    assert [(step.done, step.total) for step in tries] == [(0, 2), (1, 2), (2, 2)]
    assert tries[0].facts["images"] > 0
    assert str(tries[0].facts["about"]).endswith(" s")


def test_a_search_without_a_winner_besides_random_warns_with_its_figure():
    dense = scored("dense", 0.1)
    problem = dataclasses.replace(scored("l1", 0.0), score=None, problem="out of reach")
    search = SearchReport("random", dense, (problem, scored("random", 0.7)), 8, "held_out", 1.0)
    (warning,) = search_warnings(search)
    assert "0.7000" in warning
    assert "no other candidate reaches the budget" in warning
