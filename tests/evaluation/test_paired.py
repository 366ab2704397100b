"""Two classifiers on the same images."""

from __future__ import annotations

import torch
from torch import nn

from prunecli.architectures.reference import InputSpec
from prunecli.data import load_split, open_source
from prunecli.data.pixels import normalise
from prunecli.evaluation.paired import drop_between, hits

SPEC = InputSpec(1, 16, 16, (0.5,), (0.25,))


def test_hits_are_those_of_a_plain_loop_at_any_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10)).eval()
    images = load_split(open_source("digits"), "test", input=SPEC)
    positions = torch.randperm(len(images))[:77]
    found = hits(model, images, positions, input=SPEC, batch_size=10)
    with torch.no_grad():
        logits = model(normalise(images.images[positions], SPEC))
    assert torch.equal(found, logits.argmax(1) == images.labels[positions])
    assert 0 < int(found.sum()) < 77


def test_the_interval_of_a_drop_holds_the_truth_about_as_often_as_it_says():
    """Draw who is right where, many times, from known probabilities."""
    generator = torch.Generator().manual_seed(0)
    held, count, runs = 0, 400, 2000
    lost, won = 0.06, 0.03  # of all images: right before and wrong after, and the other way round
    for _ in range(runs):
        drawn = torch.rand(count, generator=generator)
        first = drawn < 0.85
        second = torch.where(drawn < lost, False, first) | (drawn > 1 - won)
        _, low, high = drop_between(first, second)
        held += low <= lost - won <= high
    assert 0.93 < held / runs < 0.99


def test_equal_classifiers_have_no_drop_but_an_interval():
    same = torch.tensor([True] * 50 + [False] * 50)
    drop, low, high = drop_between(same, same)
    assert drop == 0
    assert -0.05 < low < 0 < high < 0.05
