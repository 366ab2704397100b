"""Dynamic channel execution: what runs, what rests, how it ends, how it resumes."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunecli.cutting.surgery import cut_tensor, slices_of
from prunecli.data.pixels import normalise
from prunecli.errors import GraphError, InputError, InterruptedRunError
from prunecli.methods.dynamic import DynamicChannels, DynamicOptions, whole_groups
from prunecli.methods.dynamic.slicing import tensors_of
from prunecli.methods.learning.norms import estimate_norms_
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.progress import Clock, silent
from prunecli.pruning.proven_cut import Cut, proven
from prunecli.training.finetune import reproducible
from tests.support.dynamic import (
    SHORT,
    Plain,
    digits_network,
    dynamic,
    of_network,
    session_of,
    trained,
)
from tests.support.samples import sample
from tests.support.training import GREY, same
from tests.support.two_processes import in_two_processes

SEARCHING = {"search": 0.99, "settle": False}


def copied(tensors):
    return {name: value.detach().clone() for name, value in tensors.items()}


class Watched(DynamicChannels):
    """Writes down, for every step of the search, what ran on what, and what the network was."""

    def start(self, run):
        super().start(run)
        self.before = copied(self.dense_tensors(run))
        self.steps = []

    def after_backward(self, run, batch):
        self.told = copied(
            {name: torch.as_tensor(getattr(self.bandits, name)) for name in ("means", "counts")}
        )
        super().after_backward(run, batch)
        self.batch = batch

    def after_step(self, run):
        if self.frozen:
            return None
        # What was trained is put back first: freezing takes the whole network away.
        tensors = copied(self.dense_tensors(run))
        states = {name: copied(own) for name, own in self.whole.states.items()}
        counts = copied(
            {
                "counts": torch.as_tensor(self.bandits.counts),
                "means": torch.as_tensor(self.bandits.means),
            }
        )
        rate = run.optimizer.param_groups[0]["lr"]
        self.steps.append((self.keep.copy(), self.batch, rate, tensors, states, counts))
        found = super().after_step(run)
        if not self.frozen:
            self.whole.take_in_(run)
            if self.whole.average is not None:
                self.averages = [
                    *getattr(self, "averages", []),
                    copied(tensors_of(self.whole.average.model)),
                ]
        return found


def watched(model, *, options=SHORT, **arguments):
    method = of_network(digits_network(model), kind=Watched, **{**SEARCHING, **arguments})
    session, _ = trained(method, options=options)
    return method, session


def executed(method, keep, name, value):
    """Return, per entry of a whole tensor, whether its channels ran."""
    ran = torch.zeros_like(value, dtype=torch.bool)
    dims = slices_of(method.network.coupling, keep).get(name, {})
    if not value.dim():
        return ~ran
    index = torch.meshgrid(
        *(torch.tensor(dims.get(dim, range(size))) for dim, size in enumerate(value.shape)),
        indexing="ij",
    )
    ran[index] = True
    return ran


# --- what runs, and what rests ----------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_what_does_not_run_keeps_its_bits_and_so_does_its_state(optimizer):
    options = dataclasses.replace(SHORT, optimizer=optimizer, weight_decay=0.05, lr=1e-2)
    method, _ = watched(Plain(), options=options, flops=0.3)
    before, states, rested = method.before, {}, 0
    assert len(method.steps) == 14
    for keep, _, _, tensors, now, _ in method.steps:
        for name, value in tensors.items():
            ran = executed(method, keep, name, value)
            assert torch.equal(value[~ran], before[name][~ran]), name
            rested += int((~ran).sum())
            if "weight" in name:
                assert not torch.equal(value[ran], before[name][ran])
            for key, state in now.get(name, {}).items():
                old = states.get(name, {}).get(key, torch.zeros_like(state))
                assert torch.equal(state[~ran], old[~ran]), (name, key)
        before, states = tensors, now
    assert rested > 10_000
    assert {len(own) for own in states.values()} == {1 if optimizer == "sgd" else 2}


def test_sliced_steps_are_those_of_the_whole_network_with_masks():
    """Masks on activations, all weights there, and what is masked put back after every step."""
    options = dataclasses.replace(SHORT, weight_decay=0.05, momentum=0.9, lr=0.05)
    method, _ = watched(Plain(3), options=options, flops=0.3)
    oracle = Plain(3).train()
    weights = [value for value in oracle.parameters() if value.ndim > 1]
    vectors = [value for value in oracle.parameters() if value.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.05, momentum=0.9, nesterov=True,
    )  # fmt: skip
    chosen = set()
    for keep, batch, rate, tensors, _, _ in method.steps:
        masks = [
            torch.tensor(keep[group.atoms]).float() for group in method.network.coupling.groups
        ]
        chosen.add(keep.tobytes())
        before = copied(tensors_of(oracle))
        buffers = {
            name: copied(optimizer.state[value]) for name, value in oracle.named_parameters()
        }
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = oracle(normalise(batch.images, GREY), [mask.expand(40, -1) for mask in masks])
        torch.testing.assert_close(logits, batch.logits, rtol=1e-3, atol=1e-4)
        optimizer.zero_grad()
        functional.cross_entropy(logits, batch.labels).backward()
        optimizer.step()
        parameters = dict(oracle.named_parameters())
        with torch.no_grad():
            for name, value in tensors_of(oracle).items():
                rests = ~executed(method, keep, name, value)
                value[rests] = before[name][rests]
                if name in parameters:
                    buffer = optimizer.state[parameters[name]]["momentum_buffer"]
                    old = buffers[name].get("momentum_buffer", torch.zeros_like(buffer))
                    buffer[rests] = old[rests]
                torch.testing.assert_close(value, tensors[name], rtol=1e-3, atol=1e-4)
    assert len(chosen) > 4


def test_rewards_are_the_mean_over_images_of_what_a_mask_of_the_channel_would_do():
    method, _ = watched(Plain(1), flops=0.3)
    coupling = method.network.coupling
    for (*_, before, _, told), (keep, batch, _, _, _, after) in zip(
        method.steps, method.steps[1:], strict=False
    ):
        oracle = Plain().train()
        oracle.load_state_dict({**oracle.state_dict(), **before})
        masks = [torch.tensor(keep[g.atoms]).float().expand(40, -1).clone().requires_grad_()
                 for g in coupling.groups]  # fmt: skip
        loss = functional.cross_entropy(
            oracle(normalise(batch.images, GREY), masks), batch.labels, reduction="sum"
        )
        for group, mask, positions in zip(
            coupling.groups, torch.autograd.grad(loss, masks), (64, 16), strict=True
        ):
            reward = (mask / positions).abs().mean(0)[torch.tensor(keep[group.atoms])].double()
            reward = reward / reward.max()
            ran = np.flatnonzero(keep[group.atoms]) + group.first
            count = told["counts"][ran].double()
            expected = (told["means"][ran] * count + reward) / (count + 1)
            torch.testing.assert_close(after["means"][ran], expected, rtol=2e-3, atol=2e-4)
            assert torch.equal(after["counts"][ran], told["counts"][ran] + 1)
    assert method.bandits.skipped == 0


def test_every_channel_runs_in_the_warm_start_and_the_bounds_choose_after_it():
    method, _ = watched(Plain(2), flops=0.3)
    groups = method.network.coupling.groups
    ran = np.zeros(method.network.coupling.atom_count, np.int64)
    for step, (keep, *_, counts) in enumerate(method.steps):
        assert [int(keep[group.atoms].sum()) for group in groups] == method.widths.tolist()
        ran += keep
        if step + 1 == method.bandits.warm_steps:
            assert ran.min() >= 1
        assert np.array_equal(ran, counts["counts"].numpy())
    assert len({keep.tobytes() for keep, *_ in method.steps[method.bandits.warm_steps :]}) > 2


def test_only_the_chosen_channels_are_there_to_be_computed():
    with reproducible():
        session = session_of(dynamic(Plain(), flops=0.3))
    method, bare = session.run.method, session.run.bare
    first, second = method.widths.tolist()
    assert (first, second) < (12, 16)
    assert bare.conv1.weight.shape == (first, 1, 3, 3)
    assert bare.conv2.weight.shape == (second, first, 3, 3)
    assert bare.classifier.weight.shape == (10, second * 16)
    assert method.share("flops") <= 0.3


# --- any structure ----------------------------------------------------------------------------


class Joined(nn.Module):
    """Concatenates two branches, shuffles their channels, and pads a shortcut with zeros."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left = nn.Conv2d(1, 6, 3, padding=1)
        self.right = nn.Conv2d(1, 10, 3, padding=1)
        self.join = nn.Conv2d(16, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.register_buffer("order", torch.randperm(24))
        self.wide = nn.Conv2d(24, 40, 3, padding=1)
        self.classifier = nn.Linear(40, 10)

    def forward(self, x):
        x = self.join(torch.cat([self.left(x).relu(), self.right(x).sigmoid()], 1)).relu()
        x = self.norm(self.depthwise(x)).relu()[:, self.order]
        y = self.wide(x) + functional.pad(x, (0, 0, 0, 0, 8, 8))
        return self.classifier(y.relu().mean((2, 3)))


NETWORKS = {
    "joined": Joined,
    "padded": lambda: sample("digits_resnet"),
    "depthwise": lambda: sample("digits_mobilenet"),
    "flattened": lambda: sample("digits_vgg"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_narrow_network_is_the_masked_whole_one_whichever_channels_run(name):
    options = dataclasses.replace(SHORT, ema=0.9, epochs=2, limit=120)
    method = of_network(digits_network(NETWORKS[name]()), **SEARCHING)
    images = torch.randn(3, 1, 8, 8)
    with reproducible():
        session = session_of(method, options=options)
        seen = set()
        after = method.after_step

        def compare(run):
            found = after(run)
            if method.frozen:
                return found
            tensors = method.dense_tensors(run)
            fresh, program = method.network.graph_network(method.keep)
            slices = slices_of(method.network.coupling, method.keep)
            fresh.load_state_dict(
                {key: cut_tensor(tensors[key], slices.get(key, {})) for key in fresh.state_dict()}
            )
            averaged = copy.deepcopy(fresh)
            average = tensors_of(method.whole.average.model)
            averaged.load_state_dict(
                {key: cut_tensor(average[key], slices.get(key, {})) for key in fresh.state_dict()}
            )
            seen.add(repr(sorted(str(node.get("args")) for node in program["nodes"])))
            for slim, dense in ((run.bare, fresh), (run.average.model, averaged)):
                ours, theirs = copy.deepcopy(slim).eval(), dense.eval()
                with torch.no_grad():
                    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
            return found

        method.after_step = compare
        session.train()
    assert method.error < 1e-8  # the dense network with masks equals what is frozen
    assert len(seen) > (1 if name in {"joined", "padded"} else 0)


class Attends(nn.Module):
    """Attention over 16 tokens, with layer norms: only heads and the hidden layer can be chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 2, stride=2)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 16)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        n, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, tokens, 3, 4, 4).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, tokens, 16))
        x = x + self.second(functional.gelu(self.first(x)))
        return self.classifier(x.mean(1))


def test_groups_under_a_norm_or_in_a_product_stay_whole_and_say_why():
    torch.manual_seed(0)
    network = digits_network(Attends())
    reasons = whole_groups(network)
    groups = {group.name: group for group in network.coupling.groups}
    assert {name for name, group in groups.items() if not group.exact or group.contracted} == set(
        reasons
    )
    assert len(groups) > len(reasons) > 0
    assert {reason.split()[1] for reason in reasons.values()} == {"norm", "product"}
    held = next(iter(reasons))
    widths = network.cost.dense_widths.copy()
    widths[list(groups).index(held)] -= 1
    with pytest.raises(GraphError, match=f"channels of {held} cannot be executed") as caught:
        DynamicChannels(network, widths, DynamicOptions(), 0)
    assert caught.value.code == "DYNAMIC_WHOLE"


def test_heads_and_hidden_channels_are_chosen_and_proven():
    torch.manual_seed(0)
    method = of_network(digits_network(Attends()), flops=0.75)
    session, plan = trained(method)
    assert method.error < 1e-8
    assert plan.cost_after["flops"] <= 0.75 * plan.cost_before["flops"]
    assert session.best is not None


# --- the end ----------------------------------------------------------------------------------


def test_the_channels_with_the_highest_mean_reward_are_frozen_after_half_of_the_steps():
    method = dynamic(Plain(), flops=0.3)
    session, plan = trained(method)
    assert method.frozen_after == 8
    assert session.best.epoch in {2, 3}  # nothing of the search is remembered
    for group, width in zip(method.network.coupling.groups, method.widths.tolist(), strict=True):
        means = method.bandits.means[group.atoms]
        kept = method.keep[group.atoms]
        assert kept.sum() == width
        assert means[kept].min() >= means[~kept].max()
        assert plan.keep[group.name] == tuple(np.flatnonzero(kept).tolist())
    facts = [report.facts for report in session.reports]
    assert [fact["searching"] for fact in facts] == [1.0, 0.0, 0.0]
    assert all(fact["FLOPs"] == method.share("flops") <= 0.3 for fact in facts)
    assert facts[0]["changed"] > 0


def test_an_epoch_without_a_change_ends_the_search():
    options = dataclasses.replace(SHORT, epochs=8)

    class Same(DynamicChannels):
        def after_backward(self, run, batch):
            super().after_backward(run, batch)
            self.bandits.means[:] = -np.arange(len(self.bandits.means))

    network = digits_network(Plain())
    patient = of_network(network, kind=Same, search=0.9)
    trained(patient, options=options)
    assert patient.frozen_after in {4, 5, 6}  # four steps an epoch, and the warm start before
    stubborn = of_network(network, kind=Same, search=0.9, settle=False)
    trained(stubborn, options=options)
    assert stubborn.frozen_after == round(0.9 * 40)


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_the_plan_cuts_the_dense_network_to_what_was_trained(ema):
    method = dynamic(Plain(4), flops=0.3)
    dense = method.network.model
    session, plan = trained(method, options=dataclasses.replace(SHORT, ema=ema))
    assert dense is method.network.model
    cut = proven(
        method.network,
        Cut(plan, method.keep, method.widths, ()),
        PruneOptions(),
        Clock(silent),
    )
    images = torch.randn(5, 1, 8, 8)
    assert cut.verified.max_rel_error < 1e-8
    with torch.no_grad():
        torch.testing.assert_close(cut.model(images), session.run.bare.eval()(images))
    assert cut.model.conv1.weight.shape[0] == method.widths[0]


def test_the_callers_model_is_untouched():
    model = Plain(5)
    before = copied(model.state_dict())
    trained(dynamic(model, flops=0.3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_batch_norm_is_estimated_anew_on_the_training_images():
    with reproducible():
        session = session_of(dynamic(Plain(6), flops=0.3))
    run = session.run
    network = Plain(7).eval()
    nn.init.constant_(network.bn1.running_mean, 9.0)
    momentum = network.bn1.momentum
    estimate_norms_(run, network)
    images = torch.cat([images for images, _ in run.recipe.images.gather([torch.arange(200)])])
    made = network.conv1(normalise(images, GREY)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(network.bn1.running_mean, made.mean(1), rtol=1e-4, atol=1e-5)
    spread = made.var(1)
    torch.testing.assert_close(network.bn1.running_var, spread, rtol=0.1, atol=1e-3)
    assert network.bn1.momentum == momentum
    assert not network.bn1.training


def test_the_average_follows_weights_that_rest_as_well():
    options = dataclasses.replace(SHORT, ema=0.7)
    method, _ = watched(Plain(8), options=options, flops=0.3)
    average = {name: value.double() for name, value in method.before.items()}
    for step, ((_, _, _, tensors, _, _), found) in enumerate(
        zip(method.steps, method.averages, strict=False)
    ):
        decay = min(0.7, (1 + step) / (10 + step))
        for name, value in tensors.items():
            if not value.is_floating_point():
                continue
            average[name] = decay * average[name] + (1 - decay) * value.double()
            torch.testing.assert_close(found[name].double(), average[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_run_goes_on_from_the_frozen_slices_of_weights_state_and_average(ema):
    class Looks(DynamicChannels):
        def after_step(self, run):
            if self.frozen:
                return None
            found = super().after_step(run)
            if found is not None:
                self.last = (
                    copied(run.bare.state_dict()),
                    {name: copied(run.optimizer.state[value])
                     for name, value in run.bare.named_parameters()},
                    None if run.average is None else copied(run.average.model.state_dict()),
                )  # fmt: skip
            return found

        def before_step(self, run):
            if self.frozen and self.last is not None:
                weights, states, average = self.last
                for name, value in run.bare.named_parameters():
                    assert torch.equal(value, weights[name])
                    for key, state in run.optimizer.state[value].items():
                        assert torch.equal(state, states[name][key])
                for name, value in run.average.model.named_parameters() if average else ():
                    assert torch.equal(value, average[name])
                self.last = None
                assert not any("_tap" in name for name, _ in run.bare.named_modules())
            super().before_step(run)

    method = of_network(digits_network(Plain(9)), kind=Looks, flops=0.3)
    trained(method, options=dataclasses.replace(SHORT, ema=ema))
    assert method.last is None


# --- precision, stops, processes --------------------------------------------------------------


def test_it_trains_in_bf16_and_keeps_the_whole_network_in_full_precision():
    options = dataclasses.replace(SHORT, amp="bf16", ema=0.9, limit=120, batch_size=24)
    method, session = watched(Plain(), options=options, flops=0.3)
    assert method.error < 1e-8
    assert method.bandits.skipped == 0
    assert session.reports[-1].precision == "bf16"
    assert all(
        value.dtype in {torch.float32, torch.int64} for value in method.steps[-1][3].values()
    )
    full, _ = watched(Plain(), options=dataclasses.replace(options, amp="no"), flops=0.3)
    first, second = method.steps[0][5]["means"], full.steps[0][5]["means"]
    torch.testing.assert_close(first, second, rtol=0.15, atol=0.05)


class StopError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    ("name", "at", "error"),
    [
        ("plain", 1, KeyboardInterrupt),
        ("plain", 5, StopError),
        ("plain", 12, KeyboardInterrupt),
        ("padded", 7, KeyboardInterrupt),
    ],
)
def test_a_run_that_is_stopped_goes_on_bit_by_bit(tmp_path, name, at, error):
    options = dataclasses.replace(SHORT, ema=0.9, lr=0.05)
    network = digits_network(Plain(2) if name == "plain" else sample("digits_resnet"))

    class Stops(DynamicChannels):
        def before_step(self, run):
            if run.taken == at:
                run.between_steps = True
                raise error
            super().before_step(run)

    def method(kind=DynamicChannels):
        return of_network(network, kind=kind, search=0.7, reward_ema=0.5)

    straight, plan = trained(method(), options=options)
    with reproducible(), pytest.raises((StopError, InterruptedRunError)):
        session_of(method(Stops), options=options, folder=tmp_path).train()
    with reproducible():
        resumed = session_of(method(), options=options, folder=tmp_path)
        assert resumed.restore()
        resumed.train()
        again = resumed.finish()
    assert again == plan
    assert same(resumed.run.bare, straight.run.bare)
    assert same(resumed.run.average.model, straight.run.average.model)
    ours, theirs = resumed.run.method, straight.run.method
    assert np.array_equal(ours.bandits.means, theirs.bandits.means)
    assert np.array_equal(ours.bandits.counts, theirs.bandits.counts)
    assert ours.frozen_after == theirs.frozen_after == 10
    for key, value in theirs.network.model.state_dict().items():
        assert torch.equal(ours.network.model.state_dict()[key], value), key
    for one, two in zip(resumed.reports, straight.reports, strict=True):
        assert (one.loss, one.accuracy, one.facts) == (two.loss, two.accuracy, two.facts)


PARALLEL = """
import dataclasses
from tests.support.dynamic import SHORT, Plain, digits_network, of_network, trained
from prunecli.methods.dynamic import DynamicChannels

class Kept(DynamicChannels):
    keeps = ()
    def after_step(self, run):
        self.keeps = (*self.keeps, self.keep.tolist())
        return super().after_step(run)

method = of_network(digits_network(Plain(1)), kind=Kept, flops=0.3)
session, plan = trained(method, options=dataclasses.replace(SHORT, ema=0.5))
found = {"keeps": method.keeps, "plan": plan.to_json(),
            "means": torch.as_tensor(method.bandits.means),
            "model": session.run.bare.state_dict(), "losses": [r.loss for r in session.reports],
            "dense": method.network.model.state_dict()}
"""


@pytest.mark.slow
def test_two_processes_choose_the_same_channels_in_every_step(tmp_path):
    one, two = in_two_processes(PARALLEL, tmp_path)
    assert one["keeps"] == two["keeps"]
    assert len({tuple(keep) for keep in one["keeps"]}) > 3
    assert torch.equal(one["means"], two["means"])
    assert one["plan"] == two["plan"]
    assert one["losses"] == two["losses"]
    for name, value in one["model"].items():
        assert torch.equal(two["model"][name], value), name
    for name, value in one["dense"].items():
        if "running" not in name and "tracked" not in name:  # those of channels that are gone
            assert torch.equal(two["dense"][name], value), name


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"), [("explore", -1.0), ("reward_ema", 1.0), ("search", 1.0), ("search", -0.1)]
)
def test_options_out_of_range_are_refused_before_any_work(name, value):
    with pytest.raises(InputError, match=name.replace("_", "-")) as caught:
        dynamic(Plain(), **{name: value})
    assert caught.value.code == "BAD_OPTION"


def test_too_few_steps_for_every_channel_are_refused():
    options = dataclasses.replace(SHORT, epochs=1, limit=40)
    with pytest.raises(InputError, match="every channel has to run once") as caught:
        session_of(dynamic(Plain(), flops=0.3), options=options)
    assert caught.value.code == "TOO_FEW_STEPS"


def test_whole_widths_and_widths_that_no_group_has_are_refused():
    network = digits_network(Plain())
    dense = network.cost.dense_widths
    with pytest.raises(InputError, match="nothing to choose"):
        DynamicChannels(network, dense, DynamicOptions(), 0)
    for wrong in (np.array([0, 16]), np.array([13, 16])):
        with pytest.raises(GraphError, match="no such number"):
            DynamicChannels(network, wrong, DynamicOptions(), 0)


class Standardised(nn.Module):
    """A network whose forward computes its weight from another."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 1, 3, 3))
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        weight = self.weight / self.weight.square().sum((1, 2, 3), keepdim=True)
        return self.classifier(functional.conv2d(x, weight).relu().mean((2, 3)))


def test_a_network_that_computes_its_weights_is_refused():
    torch.manual_seed(0)
    network = read_network(Standardised().eval(), [torch.randn(2, 1, 8, 8)])
    with pytest.raises(GraphError, match="computes weights") as caught:
        DynamicChannels(network, network.cost.dense_widths, DynamicOptions(), 0)
    assert caught.value.code == "DYNAMIC_NEEDS_GRAPH"
