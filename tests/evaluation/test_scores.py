"""The one scorer: against losses and accuracies that numpy computes from the logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from prunecli.errors import InputError
from prunecli.evaluation.scores import (
    TEMPERATURES,
    UnscorableError,
    exact_sum,
    score_on,
    sum_at_once,
    sum_of_images,
)

SUMS = [sum_at_once, sum_of_images, exact_sum]


def draw(*sizes: int, classes: int = 7, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return batches of logits with labels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            3 * torch.randn(size, classes, generator=generator),
            torch.randint(classes, (size,), generator=generator),
        )
        for size in sizes
    ]


def losses_by_numpy(batches, *, temperature: float = 1.0) -> np.ndarray:
    """Return the cross-entropy of every image in float64."""
    logits = torch.cat([part for part, _ in batches]).double().numpy() / temperature
    labels = torch.cat([part for _, part in batches]).numpy()
    above = logits - logits[np.arange(len(labels)), labels][:, None]
    highest = above.max(axis=1)
    return highest + np.log(np.exp(above - highest[:, None]).sum(axis=1))


@pytest.mark.parametrize("summed", SUMS)
@pytest.mark.parametrize("sizes", [(1,), (64,), (64, 64, 5)])
def test_loss_and_accuracy_are_those_of_numpy(summed, sizes):
    batches = draw(*sizes)
    found = score_on(nn.Identity(), lambda: batches, summed=summed)
    right = [
        int(row.argmax()) == label
        for logits, labels in batches
        for row, label in zip(logits.numpy(), labels.tolist(), strict=True)
    ]
    assert found.loss == pytest.approx(losses_by_numpy(batches).mean(), rel=1e-6)
    assert found.accuracy == sum(right) / len(right)
    assert found.images == sum(sizes)
    assert found.calibrated is None


def test_an_exact_sum_tells_differences_that_float32_does_not():
    label = torch.zeros(1, dtype=torch.int64)
    logits = torch.tensor([[0.0, 0.0]], dtype=torch.float64)
    nudged = logits + torch.tensor([[1e-12, 0.0]], dtype=torch.float64)
    assert exact_sum(nudged, label) - exact_sum(logits, label) == pytest.approx(-5e-13, rel=1e-2)
    assert sum_at_once(nudged, label) == sum_at_once(logits, label)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_the_calibrated_loss_is_the_least_over_the_temperatures(scale):
    batches = [(scale * logits, labels) for logits, labels in draw(64, 32, seed=3)]
    found = score_on(nn.Identity(), lambda: batches, temperatures=TEMPERATURES)
    tried = [losses_by_numpy(batches, temperature=each).mean() for each in TEMPERATURES.tolist()]
    assert found.calibrated == pytest.approx(min(tried), rel=1e-5)
    assert found.calibrated <= found.loss * (1 + 1e-6)


def test_tensors_take_the_place_of_the_networks_own_and_leave_it_as_it_was():
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    batches = [(torch.randn(10, 4), torch.randint(3, (10,)))]
    zero = {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    found = score_on(layer, lambda: batches, tensors=zero)
    assert found.loss == pytest.approx(np.log(3), rel=1e-6)
    assert torch.equal(layer.weight, before)


def test_a_network_is_scored_in_evaluation_mode_and_given_back_in_its_own():
    network = nn.Sequential(nn.Dropout(1.0), nn.BatchNorm1d(7))
    network.train()
    network[1].eval()
    batches = draw(16)
    seen = network[1].running_mean.clone()
    first = score_on(network, lambda: batches)
    assert first == score_on(network, lambda: batches)
    # Dropout of everything would leave no more than chance: a loss of log 7.
    assert abs(first.loss - np.log(7)) > 0.1
    assert torch.equal(network[1].running_mean, seen)
    assert (network[0].training, network[1].training) == (True, False)


def test_no_gradient_is_kept():
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            seen.append(super().forward(x))
            return seen[-1]

    score_on(Watched(7, 7), lambda: draw(4))
    assert not seen[0].requires_grad


def test_the_first_tensor_of_an_output_holds_the_logits():
    class Nested(nn.Module):
        def forward(self, x):
            return {"logits": (x, x + 1)}

    batches = draw(9)
    assert score_on(Nested(), lambda: batches) == score_on(nn.Identity(), lambda: batches)


@pytest.mark.parametrize(
    ("batches", "code"),
    [
        ([], "NO_IMAGES"),
        ([(torch.randn(0, 3), torch.zeros(0, dtype=torch.int64))], "NO_IMAGES"),
        ([(torch.randn(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64))], "NOT_A_CLASSIFIER"),
        ([(torch.randn(4, 3), torch.zeros(4, 3))], "NOT_A_CLASSIFIER"),
    ],
)
def test_what_has_no_loss_is_refused(batches, code):
    with pytest.raises(UnscorableError) as caught:
        score_on(nn.Identity(), lambda: batches)
    assert caught.value.code == code


@pytest.mark.parametrize("summed", SUMS)
def test_a_label_without_a_logit_is_refused(summed):
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 2, 3]))]
    with pytest.raises(InputError, match="a label is 3") as caught:
        score_on(nn.Identity(), lambda: batches, summed=summed)
    assert caught.value.code == "CLASS_COUNT_MISMATCH"
