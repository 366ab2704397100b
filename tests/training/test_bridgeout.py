"""Bridgeout: the published formula and its gradient, and training with it against a plain loop."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from prunecli.data.pixels import normalise
from prunecli.errors import InterruptedRunError
from prunecli.training.finetune import reproducible
from prunecli.training.loop import drawn_batches, with_positions
from prunecli.training.recipe import derive_seed
from prunecli.training.regularizers.bridgeout import (
    BatchBridgeout,
    LinearBridgeout,
    for_examples,
    gradient_factor,
    noise,
    perturbation,
    targeted,
)
from tests.support.training import GREY, SHORT, same, session_of, trained

P, Q, FRACTION = 0.3, 1.5, 0.5
PLAIN = dataclasses.replace(
    SHORT, epochs=1, regularizer="bridgeout", p=P, q=Q, target_fraction=FRACTION, lr=0.05
)
WEIGHT = torch.tensor([-0.16, 0.0, 0.25, 1.0], dtype=torch.float64)
ALL = torch.ones(4, dtype=torch.float64)


def net(seed: int = 0) -> nn.Sequential:
    """Return a network whose layers are all perturbed but the first convolution and the 1x1."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def method() -> BatchBridgeout:
    return BatchBridgeout(p=P, q=Q, target_fraction=FRACTION)


# --- the formula ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "weights", "factors"),
    [
        (0.0, (-0.412982, 0, -0.103553, 0), (2.185854, 1, -0.060660, 0.25)),
        (1.0, (-0.051579, 0, 0.401523, 1.428571), (0.491777, 1, 1.454569, 1.321429)),
    ],
)
def test_weights_and_gradients_are_the_published_ones(kept, weights, factors):
    xi = (kept / (1 - P) - 1) * ALL
    change = perturbation(WEIGHT, xi, Q, ALL)
    assert (WEIGHT + change).tolist() == pytest.approx(weights, abs=6e-7)
    assert gradient_factor(WEIGHT, change, Q).tolist() == pytest.approx(factors, abs=6e-7)


def test_the_mean_square_of_the_perturbation_is_the_penalty_of_bridge_regression():
    moved = [perturbation(WEIGHT, (kept / (1 - P) - 1) * ALL, Q, ALL) for kept in (0.0, 1.0)]
    square = P * moved[0] ** 2 + (1 - P) * moved[1] ** 2
    assert square.tolist() == pytest.approx([0.027429, 0, 0.053571, 0.428571], abs=6e-7)
    assert (P * moved[0] + (1 - P) * moved[1]).abs().max() < 1e-12


@pytest.mark.parametrize("q", [0.5, 1.0, 1.5, 2.0])
def test_the_factor_is_the_derivative_of_the_perturbation(q):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 5, 3, 3, generator=generator, dtype=torch.float64)
    weight[0, 0, 0, 0], weight[1, 1, 1, 1] = 0.0, 1e-9
    xi = noise(weight.shape, P, generator).double()
    mask = targeted(weight, 0.6)
    leaf = weight.clone().requires_grad_()
    upstream = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    (leaf + perturbation(leaf, xi, q, mask)).backward(upstream)
    factor = gradient_factor(weight, perturbation(weight, xi, q, mask), q)
    torch.testing.assert_close(leaf.grad, upstream * factor)
    assert torch.isfinite(leaf.grad).all()


def test_a_zero_stays_zero_and_a_tiny_weight_has_a_bounded_gradient():
    tiny = torch.tensor([0.0, 1e-30, -1e-20, 1e-8])
    for xi in (torch.full((4,), -1.0), torch.full((4,), P / (1 - P))):
        change = perturbation(tiny, xi, Q, torch.ones(4))
        assert change[0] == 0
        factors = gradient_factor(tiny, change, Q)
        assert factors[0] == 1
        assert (factors - 1).abs().max() <= 0.75 * 100.0 + 1e-3  # (q/2) eps^(q/2 - 1)


def test_noise_has_two_values_of_mean_zero_in_float32():
    drawn = noise((200, 500), P, torch.Generator().manual_seed(3))
    assert drawn.dtype == torch.float32
    low, high = drawn.unique().tolist()
    assert (low, high) == pytest.approx((-1.0, P / (1 - P)))
    assert float((drawn == low).double().mean()) == pytest.approx(P, abs=0.006)
    assert float(drawn.double().var()) == pytest.approx(P / (1 - P), abs=0.006)


# --- which weights --------------------------------------------------------------------------------


def test_the_target_mask_of_a_matrix_is_the_published_one():
    weight = torch.tensor([[0.1, -0.5, 0.3, 2.0], [1.0, -1.5, 0.2, -0.05]])
    assert targeted(weight, 0.75).tolist() == [[1, 1, 1, 0], [1, 0, 1, 1]]


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("shape", [(4, 7, 3, 3), (3, 5, 1, 3), (2, 6, 3), (5, 9)])
def test_the_smallest_kernels_of_every_filter_are_targeted(shape, fraction):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected = np.zeros(shape)
    for out, row in enumerate(weight.double().numpy().reshape(*shape[:2], -1)):
        norms = np.sqrt((row**2).sum(1))
        for at in np.argsort(norms)[: int(shape[1] * fraction)]:
            expected[out, at] = 1
    assert np.array_equal(targeted(weight, fraction).numpy(), expected)


def test_all_is_all_and_ties_with_the_threshold_are_left_out():
    assert targeted(torch.ones(3, 4, 3, 3), 1.0).sum() == 3 * 4 * 9
    assert targeted(torch.ones(3, 4, 3, 3), 0.75).sum() == 0
    assert targeted(torch.tensor([[1.0, 2.0, 2.0, 3.0]]), 0.5).tolist() == [[1, 0, 0, 0]]
    assert targeted(torch.randn(8, 1, 3, 3), 0.99).sum() == 0  # depthwise: one kernel per filter


# --- training -------------------------------------------------------------------------------------


def by_hand(model: nn.Sequential, steps: int) -> nn.Sequential:
    """Train by a plain loop: autograd through w + m |w|^(q/2) xi, nothing of the method used."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    recipe = session_of(None, model=net(), options=PLAIN).recipe
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 5e-4},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1.0, momentum=0.9, nesterov=True,
    )  # fmt: skip
    model.train()
    batches = with_positions(recipe.images, drawn_batches(recipe, 0))
    for step, (_, _, images, labels) in zip(range(steps), batches, strict=False):
        noisy = {}
        for layer, name in enumerate(("0.weight", "3.weight", "8.weight")):
            weight = model.get_parameter(name)
            seed = derive_seed(PLAIN.seed, 0, step, 0, layer)
            generator = torch.Generator().manual_seed(seed)
            kept = torch.empty(weight.shape).bernoulli_(1 - P, generator=generator)
            xi = kept / (1 - P) - 1
            norms = weight.detach().square().sum((2, 3), keepdim=True)
            rank = norms.argsort(1).argsort(1)
            mask = (rank < weight.shape[1] // 2).float()
            noisy[name] = weight + mask * (weight.abs() + 1e-8) ** (Q / 2) * xi
        pixels = normalise(images, GREY, memory_format=torch.channels_last)
        loss = nn.functional.cross_entropy(functional_call(model, noisy, (pixels,)), labels)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = recipe.peak * recipe.schedule(step, recipe.steps)
        optimizer.step()
    return model


def test_training_is_that_of_a_plain_loop_with_autograd_through_the_perturbation():
    session = trained(method(), model=net(), options=PLAIN)
    plain = trained(None, model=net(), options=PLAIN)
    expected = by_hand(net(), steps=4)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(
            session.run.bare.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name
        )
    moved = (plain.run.bare[3].weight - expected[3].weight).abs().max()
    assert moved > 1e-3  # the noise is no small thing that tolerances hide


class Watched(BatchBridgeout):
    """Keeps what the network held in each pass, and after each step."""

    def __init__(self, **noise) -> None:
        super().__init__(**noise)
        self.passes: list[dict[str, torch.Tensor]] = []
        self.rest: list[dict[str, torch.Tensor]] = []
        self.averages: list[dict[str, torch.Tensor]] = []

    def before_step(self, run):
        self.rest.append({name: p.detach().clone() for name, p in run.bare.named_parameters()})
        super().before_step(run)
        self.passes.append({name: p.detach().clone() for name, p in run.bare.named_parameters()})

    def after_backward(self, run, batch):
        super().after_backward(run, batch)
        for name, value in run.bare.named_parameters():
            assert torch.equal(value, self.rest[-1][name])

    def after_step(self, run):
        if run.average is not None:
            named = run.average.model.named_parameters()
            self.averages.append({name: p.clone() for name, p in named})


def watched(amp: str = "no", ema: float = 0.0, seed: int = 0) -> Watched:
    found = Watched(p=P, q=Q, target_fraction=FRACTION)
    options = dataclasses.replace(PLAIN, amp=amp, ema=ema, seed=seed)
    trained(found, model=net(), options=options)
    return found


def test_only_convolutions_larger_than_one_are_perturbed_and_each_step_draws_anew():
    found = watched()
    changes = [
        {name for name, value in noisy.items() if not torch.equal(value, clean[name])}
        for noisy, clean in zip(found.passes, found.rest, strict=True)
    ]
    assert changes == [{"3.weight", "8.weight"}] * 4  # the first has one kernel per filter
    moves = [
        (noisy["3.weight"] < clean["3.weight"])
        for noisy, clean in zip(found.passes, found.rest, strict=True)
    ]
    assert not torch.equal(moves[0], moves[1])
    again = watched()
    assert all(torch.equal(a["3.weight"], b["3.weight"])
               for a, b in zip(found.passes, again.passes, strict=True))  # fmt: skip
    other = watched(seed=1)
    assert not torch.equal(other.passes[0]["3.weight"], found.passes[0]["3.weight"])


def test_under_bf16_the_perturbation_is_that_in_full_precision():
    full, half = watched(), watched(amp="bf16")
    assert half.passes[0]["3.weight"].dtype == torch.float32
    assert torch.equal(full.passes[0]["3.weight"], half.passes[0]["3.weight"])


def test_the_average_follows_the_clean_weights():
    found = watched(ema=0.9)
    clean = [step["3.weight"] for step in found.rest]
    mean = clean[0]
    for step in range(3):  # the weights after a step are those before the next
        decay = min(0.9, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * clean[step + 1]
        torch.testing.assert_close(found.averages[step]["3.weight"], mean)
    noisy = found.passes[3]["3.weight"]
    assert (noisy - clean[3]).abs().max() > 0.01


class Stops(BatchBridgeout):
    """Is interrupted before a step."""

    def before_step(self, run):
        if run.taken == 6:
            run.between_steps = True
            raise KeyboardInterrupt
        super().before_step(run)


def test_a_run_resumes_bit_by_bit(tmp_path):
    options = dataclasses.replace(PLAIN, ema=0.9, epochs=3)
    straight = trained(method(), model=net(), options=options)
    with reproducible():
        stopping = Stops(p=P, q=Q, target_fraction=FRACTION)
        stopped = session_of(stopping, model=net(), options=options, folder=tmp_path)
        with pytest.raises(InterruptedRunError):
            stopped.train()
    with reproducible():
        resumed = session_of(method(), model=net(), options=options, folder=tmp_path)
        assert resumed.restore()
        assert resumed.run.taken == 6
        resumed.train()
        resumed.finish()
    assert same(resumed.run.bare, straight.run.bare)
    assert same(resumed.run.average.model, straight.run.average.model)
    assert [report.loss for report in resumed.reports] == [r.loss for r in straight.reports]


def test_a_torn_step_leaves_nothing_behind_in_the_next():
    with reproducible():
        run = session_of(method(), model=net(), options=PLAIN).run
        clean = {name: value.clone() for name, value in run.bare.state_dict().items()}
        run.method.before_step(run)
        first = run.bare[3].weight.detach().clone()
        run.method.before_step(run)  # the pass in between has failed
        assert torch.equal(run.bare[3].weight, first)
        run.method.after_backward(run, None)
        assert all(torch.equal(value, clean[name]) for name, value in run.bare.state_dict().items())


# --- linear layers, each example by its own noise -------------------------------------------------


@pytest.mark.parametrize("tokens", [(), (5,), (2, 3)])
def test_every_example_is_read_by_weights_of_its_own(tokens):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, *tokens, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 6, generator=generator, dtype=torch.float64).requires_grad_()
    xi = noise((4, 3, 6), P, generator).double()
    mask = targeted(weight.detach(), FRACTION)
    added = for_examples(inputs, weight, xi, Q, mask)
    own = weight.detach().clone().requires_grad_()
    expected = torch.stack([inputs[at] @ perturbation(own, xi[at], Q, mask).T for at in range(4)])
    torch.testing.assert_close(added, expected)
    added.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(weight.grad, own.grad)


def linear_run(rank: int, processes: int) -> SimpleNamespace:
    """Return what the method reads of one of several processes."""
    accelerator = SimpleNamespace(num_processes=processes, process_index=rank)
    return SimpleNamespace(
        bare=nn.Sequential(nn.Linear(6, 3)).eval(),
        recipe=SimpleNamespace(accelerator=accelerator),
        device=torch.device("cpu"),
        generator=lambda use: torch.Generator().manual_seed(11 + use),
    )


def test_processes_share_the_noise_of_a_batch_as_they_share_its_images():
    images = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(6, 3)
    found = []
    for rank, processes, share in ((0, 1, images), (0, 2, images[0::2]), (1, 2, images[1::2])):
        run = linear_run(rank, processes)
        run.bare[0].load_state_dict(layer.state_dict())
        one = LinearBridgeout(p=P, q=Q, target_fraction=1.0)
        one.start(run)
        clean = run.bare(share)
        one.before_step(run)
        noisy = run.bare(share)
        one.after_backward(run, None)
        assert torch.equal(run.bare(share), clean)
        assert (noisy - clean).abs().max() > 0.1
        one.finish(run)
        assert not run.bare[0]._forward_hooks
        found.append(noisy)
    torch.testing.assert_close(found[0][0::2], found[1])
    torch.testing.assert_close(found[0][1::2], found[2])
    assert not torch.allclose(found[1], found[2])
