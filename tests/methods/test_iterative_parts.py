"""The parts of an iterative cut, each against an oracle of its own."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunecli.allocation import Problem
from prunecli.cutting.surgery import slices_of
from prunecli.graph.coupling.groups import ChannelGroup
from prunecli.methods.iterative.criterion import criterion_of, subject_of
from prunecli.methods.iterative.planning import training_options
from prunecli.methods.iterative.removal import REMOVALS, exponential, removals_left, remove
from prunecli.methods.iterative.taps import add_taps_, heard
from prunecli.methods.narrowing import narrowed, write_back_
from prunecli.network.traced import read_network
from prunecli.options import FinetuneOptions, PruneOptions, TrainingOptions
from prunecli.signals.accumulate import Accumulator, follows_training
from prunecli.signals.score import score_many
from prunecli.training.method import Replacement
from prunecli.training.optimizers import OPTIMIZERS, build_optimizer
from prunecli.training.placing import move_optimizer_state_


class Residual(nn.Module):
    """A convolution, a block with a shortcut, and a classifier over a flattened map."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12) if norm else nn.Identity()
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.classifier = nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = functional.avg_pool2d(self.stem(x), 2).relu()
        x = (x + self.outer(self.norm(self.inner(x)).relu())).relu()
        return self.classifier(x.flatten(1))


def network_of(*, norm: bool = True, seed: int = 0):
    torch.manual_seed(seed)
    return read_network(Residual(norm=norm).eval(), [torch.randn(2, 1, 8, 8)])


def halved(network):
    keep = np.ones(network.coupling.atom_count, np.bool_)
    for group in network.coupling.groups:
        keep[group.first + 1 : group.first + group.width : 2] = False
    return keep


def batch(seed: int = 1, count: int = 6):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    return images, torch.randint(10, (count,), generator=generator)


# --- what goes -----------------------------------------------------------------------------------


def test_targets_are_those_of_halp():
    found = exponential(10.0, 5.5, 4)
    assert found == pytest.approx((8.611735, 7.416198, 6.386634, 5.5), abs=1e-6)


def group(name: str, first: int, width: int) -> ChannelGroup:
    return ChannelGroup(name, first, width, (), (), (), 1, exact=True)


def problem(saliency, *, ceiling: float = 100.0) -> Problem:
    """Two layers in a row of 4 and 3 channels; the cost is 10 a + a b."""
    cost = SimpleNamespace(
        cost=lambda w: {"flops": 10.0 * w[0] + w[0] * w[1]},
        gradient=lambda _, w: np.asarray([10.0 + w[1], float(w[0])]),
    )
    groups = (group("a", 0, 4), group("b", 4, 3))
    return Problem(groups, np.asarray(saliency, float), cost, {"flops": ceiling}, ())


def test_costs_are_taken_anew_after_every_channel_that_goes():
    # Prices are (13, 4) first: 1.3/13 = 0.1 is below 0.5/4. Then (13, 3): 0.5/3 = 0.17 is above
    # 2/13 = 0.15, which with the first prices (0.125 against 0.15) would have been the other way.
    given = problem([1.3, 9, 2, 9, 0.5, 9, 9], ceiling=1.0)
    keep = remove(given, np.ones(7, np.bool_), np.asarray([1, 1]), most=2)
    assert np.flatnonzero(~keep).tolist() == [0, 2]


def test_nothing_goes_below_its_target_and_ties_go_to_the_lowest_index():
    given = problem([0, 0, 0, 0, 9, 9, 9], ceiling=1.0)
    keep = remove(given, np.ones(7, np.bool_), np.asarray([2, 2]))
    assert np.flatnonzero(~keep).tolist() == [0, 1, 4]


def test_a_removal_ends_where_its_cost_is_reached_and_takes_one_channel_at_least():
    given = problem([1, 2, 3, 4, 90, 90, 90], ceiling=26.0)  # 52 at first, 39 without one of `a`
    assert remove(given, np.ones(7, np.bool_), np.asarray([1, 1]), load=1.6).sum() == 6
    assert remove(given, np.ones(7, np.bool_), np.asarray([1, 1]), load=9.9).sum() == 6
    assert remove(given, np.ones(7, np.bool_), np.asarray([1, 1]), load=1.0).sum() == 5


def test_removals_to_come_are_known_beforehand():
    assert removals_left(0, channels=200, per_removal=None) == REMOVALS
    assert removals_left(3, channels=200, per_removal=None) == REMOVALS - 3
    assert removals_left(0, channels=4, per_removal=None) == 4
    assert removals_left(7, channels=10, per_removal=3) == 4
    assert removals_left(7, channels=0, per_removal=None) == 0


# --- what follows a cut --------------------------------------------------------------------------


def test_the_narrowed_coupling_is_that_of_a_fresh_trace():
    network = network_of()
    keep = halved(network)
    slim, _ = network.graph_network(keep)
    fresh = read_network(slim, [torch.randn(2, 1, 8, 8)]).coupling
    found = narrowed(network.coupling, keep)
    assert [(g.name, g.first, g.width) for g in found.groups] == [
        (g.name, g.first, g.width) for g in fresh.groups
    ]
    assert found.atom_count == fresh.atom_count
    for name, dims in fresh.tensors.items():
        for dim, atoms in dims.items():
            np.testing.assert_array_equal(found.tensors[name][dim], atoms)


def test_trained_tensors_return_to_their_places_in_the_dense_network():
    network = network_of()
    keep = halved(network)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    slim, _ = network.graph_network(keep)
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(1.0)
    write_back_(network.model, slim.state_dict(), slices_of(network.coupling, keep))
    again, _ = network.graph_network(keep)
    for name, value in slim.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    weight = network.model.inner.weight
    assert torch.equal(weight[1::2], before["inner.weight"][1::2])
    assert torch.equal(weight[::2, 1::2], before["inner.weight"][::2, 1::2])


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images, labels = batch(seed)
    module.train()
    optimizer.zero_grad()
    functional.cross_entropy(module(images.double()), labels).backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_the_optimiser_goes_on_after_a_cut_as_in_the_masked_network(name):
    network = network_of()
    keep = halved(network)
    options = FinetuneOptions(optimizer=name, lr=1e-2)
    everything = np.ones_like(keep)
    dense = network.graph_network(everything)[0].double()
    dense_optimizer = build_optimizer(dense, options)
    for seed in range(3):
        step(dense, dense_optimizer, seed)
    slices = slices_of(network.coupling, keep)
    write_back_(network.model.double(), dense.state_dict(), {})
    narrow = network_of()
    narrow.model.double().load_state_dict(network.model.state_dict())
    slim = narrow.graph_network(keep)[0].double()
    slim_optimizer = build_optimizer(slim, options)
    moved = Replacement.cut(slim, slices).moved
    move_optimizer_state_((dense, dense_optimizer), (slim, slim_optimizer), moved)

    def kept(parameter_name, value):
        for dim, indices in slices.get(parameter_name, {}).items():
            value = value.index_select(dim, torch.tensor(indices))
        return value

    pairs = dict(slim.named_parameters())
    for key, parameter in dense.named_parameters():
        for entry, value in dense_optimizer.state[parameter].items():
            cut = slim_optimizer.state[pairs[key]][entry]
            assert torch.equal(cut, kept(key, value) if value.dim() else value), (key, entry)
    with torch.no_grad():  # the mask: what reads a removed channel is zero
        dense.get_parameter("inner.weight")[:, 1::2] = 0
        dense.get_parameter("outer.weight")[:, 1::2] = 0
        columns = torch.ones(8, 16, dtype=torch.bool)
        columns[::2] = False
        dense.get_parameter("classifier.weight")[:, columns.flatten()] = 0
    step(dense, dense_optimizer, 9)
    step(slim, slim_optimizer, 9)
    for key, parameter in dense.named_parameters():
        torch.testing.assert_close(pairs[key], kept(key, parameter), rtol=0, atol=1e-6)


# --- the criterion -------------------------------------------------------------------------------


def listened(network, keep, signal, batches):
    """Return the saliency from passes as training makes them: backward of the mean loss."""
    return heard_by(network, keep, signal, batches).saliency()


def heard_by(network, keep, signal, batches):
    """Return what has listened to such passes."""
    coupling = narrowed(network.coupling, keep)
    accumulator = Accumulator(
        signal, subject_of(network, coupling, PruneOptions(signal=signal, aggregate="sum"))
    )
    slim, _ = network.graph_network(keep)
    taps = add_taps_(slim, accumulator.nodes)
    for images, labels in batches:
        functional.cross_entropy(slim(images), labels).backward()
        accumulator.add(*heard(taps, len(labels)), len(labels))
    return accumulator


@pytest.mark.parametrize("signal", ["taylor", "fisher", "fisher-per-flop", "mean-activation"])
@pytest.mark.parametrize("cut", [False, True])
def test_the_criterion_of_training_passes_is_that_of_a_pass_of_its_own(signal, cut):
    network = network_of(norm=False)
    keep = halved(network) if cut else np.ones(network.coupling.atom_count, np.bool_)
    batches = [batch(1), batch(2)]
    slim = read_network(network.graph_network(keep)[0], [batches[0][0]])
    wanted = score_many(
        [signal],
        slim.trace,
        slim.coupling,
        slim.tensors,
        weights_removed=slim.weights_removed(),
        flops_removed=slim.flops_removed(),
        batches=lambda: batches,
        aggregate="sum",
    )[signal]
    found = listened(network, keep, signal, batches)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-9)


def test_fisher_is_the_mean_of_squared_products_of_single_images():
    network = network_of(norm=False)
    images, labels = batch()
    found = listened(network, np.ones(network.coupling.atom_count, np.bool_), "fisher", [batch()])
    model = network.model
    total = torch.zeros(12)
    for image, label in zip(images, labels, strict=True):
        stem = functional.avg_pool2d(model.stem(image[None]), 2).relu()
        inner = model.inner(stem).relu()
        inner.retain_grad()
        output = model.classifier((stem + model.outer(inner)).relu().flatten(1))
        functional.cross_entropy(output, label[None]).backward()
        total += (inner * inner.grad).sum((0, 2, 3)).square() / len(images)
    (own,) = [g for g in network.coupling.groups if g.name == "inner"]
    np.testing.assert_allclose(found[own.atoms], total.detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize("signal", ["fisher", "taylor", "mean-activation"])
def test_what_two_processes_hear_is_added_up(signal):
    network = network_of(norm=False)
    everything = np.ones(network.coupling.atom_count, np.bool_)
    wanted = listened(network, everything, signal, [batch(1), batch(2)])
    one, two = (heard_by(network, everything, signal, [batch(seed)]) for seed in (1, 2))
    others = iter([*two.sums.totals.values(), torch.tensor(two.sums.images)])
    one.merge(lambda value: value + next(others))
    np.testing.assert_allclose(one.saliency(), wanted, rtol=1e-6)


def test_taps_change_neither_outputs_nor_gradients():
    network = network_of()
    keep = halved(network)
    plain, tapped = (network.graph_network(keep)[0].train() for _ in range(2))
    nodes = [
        node.name for node in tapped.graph.nodes if node.op in {"call_function", "call_module"}
    ]
    add_taps_(tapped, nodes)
    images, labels = batch()
    for module in (plain, tapped):
        functional.cross_entropy(module(images), labels).backward()
    for one, other in zip(plain.parameters(), tapped.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert list(plain.state_dict()) == list(tapped.state_dict())


@pytest.mark.parametrize(
    ("signal", "where"),
    [
        ("fisher", "accumulated"),
        ("activation-before/taylor2-approx2/l2/l1", "accumulated"),
        ("taylor-2019", "between"),
        ("activation/hessian-approx1/none/none", "between"),
        ("weight/taylor/abs-sum/none", "between"),
        ("l1", "weights"),
        ("random", "weights"),
    ],
)
def test_it_is_said_where_a_signal_is_taken(signal, where):
    assert where in criterion_of(signal)
    assert follows_training(signal) == (where == "accumulated")


def test_every_option_of_training_that_an_iterative_cut_has_arrives_in_the_training():
    given = {
        "optimizer": "adam", "batch_size": 7, "amp": "no", "schedule": "cosine", "ema": 0.5,
        "clip": 1.5, "lr": 0.01, "weight_decay": 1e-3, "temperature": 2.0, "alpha": 0.5,
        "warmup": 0.1, "patience": 2, "device": "cpu", "log": ("csv",), "augment": "none",
        "workers": 1,
    }  # fmt: skip
    refused = {"accumulate", "freeze", "compile"}  # in an iterative cut, in so many words
    own = {field.name for field in dataclasses.fields(TrainingOptions)}
    shared = own & {field.name for field in dataclasses.fields(FinetuneOptions)}
    assert shared == {*given, *refused, "epochs"}  # which rounds of updates take the place of
    options = PruneOptions(method="iterative", training=TrainingOptions(**given))
    training = training_options(options)
    assert {name: getattr(training, name) for name in given} == given
