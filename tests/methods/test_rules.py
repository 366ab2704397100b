"""The formulas of methods that learn what to prune, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from prunecli.allocation import ceilings_of
from prunecli.budget import make_budget
from prunecli.evaluation.batches import NO_IMAGES
from prunecli.gating.bank import GateBank, Places, gated_network
from prunecli.gating.choose import gateable
from prunecli.gating.functions import OPEN_ABOVE, masked_gate, open_probability
from prunecli.gating.places import places_of, sites_of
from prunecli.methods.bar import BudgetAware, barrier, transition
from prunecli.methods.exact_gates import ExactGates
from prunecli.methods.gradual import Gradual
from prunecli.methods.group_lasso import GroupLasso
from prunecli.methods.learning.choice import chosen_widths
from prunecli.methods.learning.method import _fold_gates_
from prunecli.methods.learning.rule import Moment, beside_their_group
from prunecli.methods.learning.search import make_search
from prunecli.methods.setup import Setup
from prunecli.methods.trainable_gates import TrainableGates
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions, TrainingOptions
from prunecli.training.losses import distillation_loss
from tests.support.samples import sample


def search_of(name: str = "digits_resnet", *, table=None, options=None, **budget):
    network = read_network(sample(name), (torch.randn(2, 1, 8, 8),))
    if table is not None:
        network = dataclasses.replace(network, latency=table)
    gated, ungated = gateable(network, {})
    setup = Setup(
        network,
        make_budget(**(budget or {"flops": 0.4})),
        options or PruneOptions(method="exact-gates"),
        network.cost.dense_widths,
        ungated,
        NO_IMAGES,
    )
    saliency = np.random.default_rng(0).random(gated.size)
    widths = np.maximum(network.cost.dense_widths // 2, 1)
    return make_search(setup, gated, saliency, widths, steps=10, device=torch.device("cpu"))


# --- barrier, schedules, volume ------------------------------------------------------------------


def test_the_schedules_of_the_barrier_end_where_they_should():
    found = [transition("sigmoid", t) for t in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    assert found == pytest.approx([0, 0.011447, 0.070104, 0.5, 0.929896, 0.988553, 1], abs=1e-6)
    found = [transition("exponential", t) for t in (0, 0.25, 0.5, 1)]
    assert found == pytest.approx([0, 0.643914, 0.880797, 1], abs=1e-6)
    assert [transition("linear", t) for t in (-1, 0.3, 2)] == [0, 0.3, 1]


def test_the_barrier_is_flat_at_its_foot_grows_and_ends_at_its_ceiling():
    found = [barrier(v, 1, 4) for v in (0.5, 1, 2, 2.5, 3, 3.9)]
    assert found == pytest.approx([0, 0, 0.166667, 0.5, 1.333333, 28.033333], abs=1e-6)
    assert barrier(4, 1, 4, ceiling=1e10) == 1e10
    assert barrier(1 + 1e-6, 1, 4) < 1e-10
    values = [barrier(v, 1, 4) for v in np.linspace(1, 4.5, 50)]
    assert values == sorted(values)
    assert barrier(2.5, 1, 4) == barrier(25, 10, 40)  # only r counts


def test_the_worked_example_of_volume_and_barrier():
    areas = torch.tensor([1024.0, 256.0], dtype=torch.float64)
    logits = [
        torch.tensor([2.0, 0, -3, 1], dtype=torch.float64),
        torch.tensor([0, -2.5, 3, -1, -4, 0.5, -2, 2], dtype=torch.float64),
    ]
    dense = float((areas * torch.tensor([4, 8])).sum())
    expected = sum(
        float(area * open_probability(own).sum()) for area, own in zip(areas, logits, strict=True)
    )
    alive = sum(
        float(area * (own > OPEN_ABOVE).sum()) for area, own in zip(areas, logits, strict=True)
    )
    assert (dense, alive) == (6144, 4352)
    assert expected == pytest.approx(4310.6156, abs=1e-3)
    goal = 0.5 * dense
    b = (1 - transition("sigmoid", 0.5)) * 1.01 * dense + transition("sigmoid", 0.5) * goal
    a = goal - 1e-4 * 1.01 * dense
    assert (b, a) == pytest.approx((4638.72, 3071.379456))
    found = barrier(alive, a, b)
    assert (alive - a) / (b - a) == pytest.approx(0.817066, abs=1e-6)
    assert found == pytest.approx(3.6494, abs=1e-4)
    assert 1e-5 * found * expected == pytest.approx(0.1573, abs=1e-4)


def test_distillation_as_in_the_worked_example():
    student = torch.tensor([[1.0, 1, 0]], dtype=torch.float64)
    teacher = torch.tensor([[2.0, 0, -1]], dtype=torch.float64)
    found = distillation_loss(student, teacher, torch.tensor([0]), temperature=4, alpha=0.9)
    assert float(found) == pytest.approx(0.528193, abs=1e-6)


def test_the_term_of_the_barrier_is_the_area_weighted_volume_of_the_paper():
    """With a budget of activations, lambda f L_S is 1e-5 f sum_l A_l sum_i P(z > 0)."""
    options = PruneOptions(method="bar", training=TrainingOptions(start="equal", volume="hard"))
    search = search_of("digits_vgg", options=options, activations=0.5)
    rule = BudgetAware(search)

    class Bank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.linspace(-3, 3, len(search.spread)))
            self.mask = torch.ones(len(search.spread))

    bank = Bank()
    moment = Moment(5, 10, nn.Module(), bank, torch.Generator())
    found = float(rule.extra_loss(moment).detach())
    network = search.setup.network
    gradient = network.cost.gradient("activations", network.cost.dense_widths)
    areas = torch.as_tensor(gradient)[search.groups]  # of one channel: height times width
    alive = (bank.logits.detach() > OPEN_ABOVE).double()
    rest = network.cost.dense["activations"] - float(areas.sum())
    volume, dense = rest + float((areas * alive).sum()), network.cost.dense["activations"]
    moved = transition("sigmoid", 5 / 9)
    b = (1 - moved) * 1.01 * dense + moved * 0.5 * dense
    f = barrier(volume, 0.5 * dense - 1e-4 * 1.01 * dense, b)
    expected = rest + float((areas * open_probability(bank.logits.detach().double())).sum())
    assert found == pytest.approx(1e-5 * f * expected, rel=1e-5)


def test_barriers_of_several_limits_are_told_by_the_highest_and_updates_counted_once():
    # Of activations this network can hardly lose any more than the second limit asks for.
    search = search_of("digits_vgg", flops=0.3, params=0.3, activations=0.999)
    rule = BudgetAware(search)
    bank = GateBank(Places(()), search.gated, trained=rule.trained, tested=rule.tested)
    with torch.no_grad():
        bank.logits.fill_(9.0)
    rule.extra_loss(Moment(9, 10, nn.Module(), bank, torch.Generator()))
    assert rule.facts() == {"barrier": 1000.0, "beyond": 1.0}
    with torch.no_grad():
        bank.logits.fill_(-9.0)
    rule.extra_loss(Moment(9, 10, nn.Module(), bank, torch.Generator()))
    assert rule.facts() == {"barrier": 0.0, "beyond": 1.0}


# --- the budget of the moment --------------------------------------------------------------------


class Table:
    """Milliseconds of a table: a tenth for every channel."""

    def predict(self, widths, *, activations):
        return float(np.sum(widths)) / 10 + activations * 1e-6

    def gradient(self, widths, *, activations):  # noqa: ARG002
        return 0.1 + np.asarray(activations) * 1e-6


@pytest.mark.parametrize(
    ("latency", "budget"),
    [(None, {"flops": 0.3}), (None, {"params": 0.5, "activations": 0.6}),
     (Table(), {"latency": 0.5})],
)  # fmt: skip
@pytest.mark.parametrize("progress", [0.2, 1.0])
def test_as_many_gates_are_open_as_the_budget_allows_and_not_one_more(latency, budget, progress):
    search = search_of(table=latency, **budget)
    scores = torch.randn(len(search.spread), generator=torch.Generator().manual_seed(2))
    ceilings = search.ceilings_at(progress)
    mask = search.open_at(scores, ceilings)
    cost = search.setup.network.cost

    def within(mask: torch.Tensor) -> bool:
        found = cost.cost(search.widths(mask).round().long().numpy())
        return all(found[kind] <= ceiling for kind, ceiling in ceilings.items())

    assert within(mask)
    closed = torch.nonzero(mask == 0).flatten()
    best = closed[scores[closed].argmax()]
    assert not within(mask.index_fill(0, best, 1.0))
    for group in torch.unique(search.groups):
        own = search.groups == group
        assert mask[own][scores[own].argmax()] == 1
        opened = scores[own][mask[own] > 0]
        assert not (mask[own] == 0).any() or opened.min() >= scores[own][mask[own] == 0].max()


def test_the_cost_of_gates_is_that_of_their_widths_and_its_price_the_gradient():
    search = search_of(params=0.5)
    gates = torch.ones(len(search.spread))
    assert float(search.load(gates)) == pytest.approx(2.0)
    price = search.price(gates)
    cost = search.setup.network.cost
    slope = (
        cost.gradient("params", cost.dense_widths)
        / ceilings_of(search.setup.budget, cost.dense)["params"]
    )
    assert price.numpy() == pytest.approx(slope[search.groups.numpy()], rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_cut_at_the_end_uses_the_budget_up(seed):
    search = search_of(flops=0.5)
    scores = torch.randn(len(search.spread), generator=torch.Generator().manual_seed(seed))
    keep, selection = chosen_widths(search, scores)
    cost = search.setup.network.cost
    kept = cost.cost(selection.widths)["flops"] / cost.dense["flops"]
    assert 0.97 * 0.5 <= kept <= 0.5
    for group in search.setup.network.coupling.groups:
        assert (
            int(keep[group.atoms].sum())
            == selection.widths[search.setup.network.coupling.groups.index(group)]
        )


# --- baselines -----------------------------------------------------------------------------------


def test_the_penalty_on_coupled_weights_is_that_of_a_loop_over_channels():
    search = search_of("digits_vgg", options=PruneOptions(method="group-lasso"))
    rule, network = GroupLasso(search), search.setup.network
    sizes = rule.sizes(network.model).detach().numpy()
    parameters = dict(network.model.named_parameters())
    for group in network.coupling.groups:
        for atom in range(group.first, group.first + min(group.width, 3)):
            total = 0.0
            for name, dims in network.coupling.tensors.items():
                for dim, atoms in dims.items():
                    if name in parameters:
                        own = np.flatnonzero((atoms == atom).any(0))
                        part = parameters[name].detach().numpy().take(own, dim)
                        total += float((part.astype(np.float64) ** 2).sum())
            assert sizes[atom] == pytest.approx(total, rel=1e-5)
    loss = rule.extra_loss(Moment(0, 10, network.model, None, torch.Generator()))
    total = 0.0
    for group in network.coupling.groups:
        own = sizes[group.atoms]
        gamma = 2 ** (4 * (own.max() - own) / (own.max() - own.min()))
        total += float((gamma * own).sum())
    assert float(loss.detach()) == pytest.approx(5e-4 * total, rel=1e-4)


def test_scores_beside_their_group_have_a_mean_of_one():
    search = search_of()
    scores = torch.rand(len(search.spread), dtype=torch.float64) * (1 + search.groups)
    found = beside_their_group(search, scores)
    for group in torch.unique(search.groups):
        assert float(found[search.groups == group].mean()) == pytest.approx(1.0)


# --- the cut at the end of a search --------------------------------------------------------------


@pytest.mark.parametrize("kind", [BudgetAware, ExactGates, TrainableGates, Gradual])
def test_no_channel_that_is_kept_loses_its_weights_with_the_last_mask(kind):
    """The cut may keep more than the last mask has open: aligned widths, `--min-width`."""
    search = search_of("digits_vgg")
    rule, network = kind(search), search.setup.network
    bank = GateBank(
        places_of(network, search.gated),
        search.gated,
        trained=rule.trained,
        tested=rule.tested,
    )
    module = gated_network(network, bank)
    with torch.no_grad():
        bank.logits.copy_(torch.linspace(-4, 4, len(bank.logits)))
    bank.active = True
    bank.mask.copy_((bank.logits > 2).float())
    kept = bank.logits > -3  # among them such whose gate is closed, by mask or by median
    before = {name: module.get_parameter(name).detach().clone() for name in bank.weights}
    _fold_gates_(module, rule, kept)
    numbers = dict(zip(np.flatnonzero(search.gated), kept.tolist(), strict=True))
    for site in sites_of(network.coupling, search.gated):
        after = module.get_parameter(site.weight).detach()
        for dim, rows in site.rows.items():
            alive = np.asarray([all(numbers.get(atom, True) for atom in row) for row in rows.T])
            rest = [other for other in range(after.dim()) if other != dim]
            assert ((after.abs().sum(rest) > 0).numpy() == alive).all()
            if kind is not BudgetAware:  # whose gates are fractions
                index = torch.as_tensor(np.flatnonzero(alive))
                whole = before[site.weight].index_select(dim, index)
                assert torch.equal(after.index_select(dim, index), whole)


def test_a_mask_keeps_as_many_channels_of_every_group_as_are_asked_for():
    options = dataclasses.replace(PruneOptions(method="exact-gates"), min_width=6)
    search = search_of("digits_vgg", options=options, flops=0.2)
    mask = search.open_at(-torch.arange(len(search.spread), dtype=torch.float32), {"flops": 0.0})
    groups = search.setup.network.coupling.groups
    for group in torch.unique(search.groups).tolist():
        opened = int(mask[search.groups == group].sum())
        assert opened == -(-6 // groups[group].multiplicity)


# --- gradients -----------------------------------------------------------------------------------


def test_an_overflow_in_fp16_leaves_the_price_as_it_was():
    search = search_of("digits_vgg")
    rule = ExactGates(search)

    class Bank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(len(search.spread)))
            self.mask = torch.ones(len(search.spread))

    bank = Bank()
    moment = Moment(0, 10, nn.Module(), bank, torch.Generator())
    bank.logits.grad = torch.full_like(bank.logits, torch.inf)
    rule.after_backward(moment, 65536.0)
    assert not bank.logits.grad.isfinite().all()  # the scaler sees it, and makes no update
    bank.logits.grad = torch.linspace(-3, 1, len(bank.logits)) * 1024
    rule.after_backward(moment, 1024.0)
    assert rule.price > 0
    size = bank.logits.grad.double().div(1024).square().mean().sqrt()
    assert float(size) == pytest.approx(1.0)


def test_a_limit_with_room_left_opens_no_gates_while_another_one_binds():
    search = search_of("digits_vgg", flops=0.3, params=0.95)
    alone = search_of("digits_vgg", flops=0.3)
    losses = []
    for each in (search, alone):
        rule = TrainableGates(each)
        bank = GateBank(Places(()), each.gated, trained=rule.trained, tested=rule.tested)
        with torch.no_grad():
            bank.mask.zero_()
            bank.mask[::2] = 1
        losses.append(rule.extra_loss(Moment(5, 10, nn.Module(), bank, torch.Generator())))
    kept = search.expected.kept("params", search.widths(bank.mask))
    assert float(kept) < 0.95
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()))


def test_a_straight_through_gate_is_exactly_its_mask():
    logits = torch.linspace(-9, 9, 1001, requires_grad=True)
    mask = (torch.arange(1001) % 2).float()
    gates = masked_gate(logits, mask)
    assert torch.equal(gates.detach(), mask)
    gates.sum().backward()
    assert torch.equal(logits.grad, torch.ones(1001))
