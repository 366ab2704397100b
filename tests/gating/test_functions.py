"""Gates as functions of logits, against the numbers that their papers and arithmetic give."""

import numpy as np
import pytest
import torch

from prunecli.gating.functions import (
    OPEN_ABOVE,
    gradient_shape,
    hard_concrete,
    hard_concrete_median,
    masked_gate,
    open_probability,
    sawtooth_gate,
    straight_gate,
)

LOGITS = [0.123456, -0.2000034, 0.0, -1e-7, 1.5]


def doubles(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_a_hard_concrete_gate_is_open_with_the_probability_of_the_formula():
    found = open_probability(doubles(-3, 0, 2)).tolist()
    assert found == pytest.approx([0.197594, 0.831822, 0.973367], abs=1e-6)
    assert pytest.approx(-1.598597, abs=1e-6) == OPEN_ABOVE


def test_a_hard_concrete_gate_of_a_draw():
    draws = doubles(0.05, 0.2, 0.5, 0.8, 0.95)
    found = hard_concrete(torch.zeros(5, dtype=torch.float64), draws).tolist()
    assert found == pytest.approx([0, 0.033333, 0.5, 0.966667, 1], abs=1e-6)


def test_the_median_gate_is_open_exactly_where_the_probability_is_above_a_half():
    logits = doubles(-3, OPEN_ABOVE, -1, 0, 1, -OPEN_ABOVE)
    assert hard_concrete_median(logits).tolist() == pytest.approx(
        [0, 0, 0.118911, 0.5, 0.881089, 1], abs=1e-6
    )
    many = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    assert torch.equal(hard_concrete_median(many) > 0, open_probability(many) > 0.5)


def test_the_mean_of_many_draws_and_the_share_that_is_fully_open():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(400_000, generator=generator, dtype=torch.float64)
    for logit, mean, whole in ((-3, 0.0604, 0.0100), (0, 0.5, 0.168), (2, 0.857, 0.599)):
        gates = hard_concrete(torch.full_like(draws, logit), draws)
        assert float(gates.mean()) == pytest.approx(mean, abs=3e-3)
        assert float((gates == 1).double().mean()) == pytest.approx(whole, abs=3e-3)


def test_draws_of_zero_and_one_stay_finite():
    logits = torch.zeros(2, requires_grad=True)
    gates = hard_concrete(logits, torch.tensor([0.0, 1.0]))
    gates.sum().backward()
    assert gates.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_published_trainable_gate_at_known_places():
    weights = doubles(*LOGITS[:4], grad=True)
    gates = sawtooth_gate(weights, 0.0)
    assert gates.tolist() == pytest.approx([1.000006, 6.6e-6, 1, 9.9e-6], abs=1e-7)
    gates.sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == pytest.approx([1, 1, 1, 1], abs=1e-9)


def test_the_shaped_gradient_is_that_of_the_shape():
    weights = doubles(LOGITS[0], LOGITS[1], LOGITS[4], grad=True)
    sawtooth_gate(weights, 0.0, "logistic").sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == pytest.approx([0.996199, 0.990067, 0.596586], abs=1e-5)


@pytest.mark.parametrize("shape", ["one", "logistic", "tanh"])
@pytest.mark.parametrize("threshold", [0.0, 0.31])
def test_both_implementations_of_the_gate_agree_to_one_tooth(shape, threshold):
    values = torch.linspace(-2, 2, 997, dtype=torch.float64)
    found = []
    for gate in (sawtooth_gate, straight_gate):
        weights = values.clone().requires_grad_()
        gates = gate(weights, threshold, shape)
        (gates * torch.arange(997)).sum().backward()
        found.append((gates.detach(), weights.grad / torch.arange(1, 998)))
    assert float((found[0][0] - found[1][0]).abs().max()) <= 1e-5
    assert float((found[0][1] - found[1][1]).abs().max()) <= 1e-4
    assert set(found[1][0].tolist()) == {0.0, 1.0}


def test_every_shape_is_positive_and_bounded():
    values = torch.linspace(-8, 8, 101, dtype=torch.float64)
    for shape in ("one", "logistic", "tanh"):
        found = gradient_shape(shape, values)
        assert (found > 0).all()
        assert (found <= 1).all()


def test_a_masked_gate_is_its_mask_and_passes_the_gradient_of_its_logits():
    logits, mask = doubles(0.3, -4, grad=True), doubles(0, 1)
    gates = masked_gate(logits, mask)
    assert torch.equal(gates.detach(), mask)
    (gates * doubles(5, 7)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [5, 7]


def test_the_toy_of_trainable_gates_keeps_the_five_most_useful():
    """-sum u TG(w) + 2 (1/2 - mean TG)^2: a gate survives if u > 2 lambda (mean - rho) / C."""
    useful = doubles(*np.arange(0.16, 0.0, -0.02)[:8])
    weights = torch.full((8,), 0.05, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=0.01)
    for _ in range(3000):
        gates = straight_gate(weights, 0.0)
        loss = -(useful * gates).sum() + 2 * (0.5 - gates.mean()).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (weights >= 0).tolist() == [True] * 5 + [False] * 3
