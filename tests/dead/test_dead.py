"""Dead channels against planted ones: what goes changes nothing, what cannot go is left."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.dead import Kept, find_dead, without_dead
from prunecli.dead.activations import look
from prunecli.dead.compensate import BORDER, CARRIES, NO_SINK
from prunecli.dead.find import penalties
from prunecli.dead.trial import TOGETHER
from prunecli.errors import GraphError, InputError
from prunecli.evaluation.batches import Images
from prunecli.network.traced import read_network
from tests.support.random_networks import SIDE, draw, network
from tests.support.weights import randomize_

F64 = torch.float64


def images(*shape: int, count: int = 12, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return two batches of random images with labels of three classes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *shape, generator=generator, dtype=F64)
    labels = torch.randint(3, (count,), generator=generator)
    return [(x[: count // 3], labels[: count // 3]), (x[count // 3 :], labels[count // 3 :])]


def dead_of(model: nn.Module, batches: list[tuple[Tensor, Tensor]] | None, **choices):
    network = read_network(model, [torch.zeros(2, *SHAPE, dtype=F64)])
    given = None if batches is None else partial(iter, batches)
    return network, find_dead(network, batches=given, **choices)


SHAPE = (2, 6, 6)


def plant(layer: nn.Module, channel: int, value: float) -> None:
    """Let a layer make a constant."""
    with torch.no_grad():
        layer.weight[channel] = 0
        layer.bias[channel] = value


class Chain(nn.Module):
    """A stem, something that reads it, and a head: the shape of most cases."""

    def __init__(self, middle: nn.Module, width: int = 6, *, stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem or nn.Conv2d(2, 6, 3, padding=1)
        self.middle = middle
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.stem(x)).relu()
        return self.head(x.mean((2, 3)) if x.dim() == 4 else x)


class Wired(nn.Module):
    """A residual sum, a concatenation, a depthwise layer, pools, and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.outer = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 6, 1, bias=False)
        self.after = nn.BatchNorm2d(6)
        self.depth = nn.Conv2d(6, 6, 3, groups=6)
        self.side, self.joined = nn.Conv2d(6, 4, 1), nn.Conv2d(10, 5, 1)
        self.hidden, self.head = nn.Linear(5 * 4, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.after(self.outer(torch.sigmoid(self.inner(x))))
        x = functional.avg_pool2d(self.depth(x), 2)
        x = torch.cat([x, functional.max_pool2d(self.side(x), 1)], 1)
        return self.head(self.hidden(self.joined(x).relu().flatten(1)).tanh())


def wired() -> nn.Module:
    model = randomize_(Wired(), seed=3).double().eval()
    with torch.no_grad():
        # Constant through a sum: a norm of scale 0 on both sides of it.
        model.norm.weight[2], model.norm.bias[2] = 0, 0.7
        model.after.weight[2], model.after.bias[2] = 0, -0.2
        # Saturated: sigmoid(60) is 1 in float64; and never open: relu(-1000 + something small).
        model.inner.bias[5] = 60
        model.joined.bias.copy_(torch.tensor([9.0, -1000, 9, 9, 9]))
        model.hidden.bias[4] = 50
    plant(model.side, 3, -1.5)
    return model


def test_constants_are_followed_through_sums_joins_pools_norms_and_flattened_maps() -> None:
    model, batches = wired(), images(*SHAPE)
    before = [model(x) for x, _ in batches]
    network, dead = dead_of(model, batches)
    found = {group.name: group.constant for group in dead.report.groups}
    assert found == {"stem": (2,), "inner": (5,), "side": (3,), "joined": (1,), "hidden": (4,)}
    assert dead.report.removable == 5
    after, report = without_dead(network, dead, images=Images(partial(iter, batches)))
    assert all(
        torch.allclose(after.model(x), y, atol=1e-10)
        for (x, _), y in zip(batches, before, strict=False)
    )
    assert abs(report.scores.loss_before - report.scores.loss_after) < 1e-12
    result = prunecli.prune(model, batches[0][0], dead=True, batches=partial(iter, batches))
    assert all(
        torch.allclose(result.model(x), y, atol=1e-10)
        for (x, _), y in zip(batches, before, strict=False)
    )
    assert {group.name: group.after for group in result.report.groups} == {
        "stem": 5, "inner": 7, "side": 3, "joined": 4, "hidden": 6,
    }  # fmt: skip
    assert result.report.verified.max_rel_error < 1e-12
    assert all(torch.equal(model(x), y) for (x, _), y in zip(batches, before, strict=False))


def test_bias_propagation_has_the_known_answer() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1, -2], [0.5, 3]]))
        model[2].bias.copy_(torch.tensor([0.1, -0.2]))
        model[0].bias[0] = 9
    plant(model[0], 1, 1.25)
    result = prunecli.prune(model, torch.zeros(2, 3, dtype=F64), dead=True)
    assert result.model[2].bias.tolist() == pytest.approx([-2.4, 3.55])
    assert result.model[2].weight.tolist() == [[1.0], [0.5]]


# --- borders, and readers without a bias ---------------------------------------------------------


@pytest.mark.parametrize(
    "reader",
    [
        nn.Conv2d(6, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        nn.Conv2d(6, 6, 3, bias=False),
        nn.Conv2d(6, 6, 3, padding=1, groups=2),
        nn.Conv2d(6, 6, 3, stride=2, padding=2, dilation=2, padding_mode="zeros"),
        nn.ConvTranspose2d(6, 6, 3, stride=2),
    ],
    ids=["padded", "padded without bias", "without bias", "grouped", "dilated", "transposed"],
)
def test_of_several_constants_one_carries_the_others_exactly_also_at_borders(
    reader: nn.Conv2d,
) -> None:
    model = randomize_(Chain(reader), seed=1).double().eval()
    for channel, value in ((0, 0.5), (1, -2.0), (3, 1.0), (4, 0.3), (5, -0.7)):
        plant(model.stem, channel, value)
    batches = images(*SHAPE)
    network, dead = dead_of(model, batches)
    (group,) = (group for group in dead.report.groups if group.name == "stem")
    assert set(group.stays.values()) == {CARRIES}
    assert len(group.stays) == 1
    after, report = without_dead(network, dead)
    assert report.borders == {}
    for x, _ in batches:
        assert torch.allclose(after.model(x), model(x), atol=1e-10)
    result = prunecli.prune(model, batches[0][0], dead=True, batches=partial(iter, batches))
    for x, _ in batches:
        assert torch.allclose(result.model(x), model(x), atol=1e-10)
    assert result.report.groups[0].after == 6 - 4


def test_a_norm_behind_a_reader_without_bias_takes_the_constant_in_its_mean() -> None:
    reader = nn.Sequential(nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5))
    model = randomize_(Chain(reader, 5), seed=1).double().eval()
    plant(model.stem, 2, 1.5)
    network, dead = dead_of(model, images(*SHAPE))
    assert dead.report.removable == 1
    after, _ = without_dead(network, dead)
    shift = model.middle[0].weight[:, 2, 0, 0] * 1.5
    assert torch.allclose(
        after.model.middle[1].running_mean, model.middle[1].running_mean - shift, atol=1e-12
    )
    x = images(*SHAPE)[0][0]
    assert torch.allclose(after.model(x), model(x), atol=1e-10)


def test_a_lone_constant_stays_where_nothing_can_take_it_and_the_reason_is_given() -> None:
    for reader, reason in (
        (nn.Conv2d(6, 6, 3, padding=1), BORDER),
        (nn.Conv2d(6, 6, 1, bias=False), NO_SINK),
    ):
        model = randomize_(Chain(reader), seed=1).double().eval()
        plant(model.stem, 2, 1.5)
        _, dead = dead_of(model, images(*SHAPE))
        (group,) = dead.report.groups
        assert (group.constant, dict(group.stays)) == ((2,), {"2": reason})
        assert dead.report.removable == 0


def test_zeros_go_whatever_reads_them() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.twice = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.twice(self.twice(self.stem(x).relu()).relu()).relu()
            return self.head(x.mean((2, 3)))

    model = randomize_(Odd(), seed=2).double().eval()
    with torch.no_grad():
        model.stem.bias[1] = -1000
        model.twice.weight[1] = 0
        model.twice.weight[3] = 0
    plant(model.stem, 3, 1.0)
    batches = images(*SHAPE)
    network, dead = dead_of(model, batches)
    found = {group.name: (group.constant, len(group.stays)) for group in dead.report.groups}
    # A layer that is called twice ties its outputs to its inputs. It reads the 1 of channel 3 once,
    # and its zero once: no change of the layer is right for both.
    assert found == {"stem": ((1, 3), 1)}
    assert dead.gone.sum() == 1
    after, _ = without_dead(network, dead)
    x = batches[0][0]
    assert torch.allclose(after.model(x), model(x), atol=1e-12)


def test_a_border_is_accepted_and_reported_where_its_measured_penalty_is_small() -> None:
    model = randomize_(Chain(nn.Conv2d(6, 6, 3, padding=1)), seed=1).double().eval()
    plant(model.stem, 2, 1e-3)
    batches = images(*SHAPE)
    network, dead = dead_of(model, batches, threshold=1e-2)
    assert dead.gone[2]
    _after, report = without_dead(network, dead, images=Images(partial(iter, batches)))
    (error,) = report.borders.values()
    x = torch.full((1, 1, 6, 6), 1e-3, dtype=F64)
    weight = model.middle.weight.detach()[:, 2:3]
    made = functional.conv2d(x, weight, padding=1)[0].flatten(1)
    worst = (made - made.mean(1, keepdim=True)).abs().max()
    assert error >= float(worst) * (1 - 1e-9)
    assert 0 < abs(report.scores.loss_after - report.scores.loss_before) < 1e-2
    _, strict = dead_of(model, batches, threshold=1e-12)
    assert not strict.gone[2]


# --- the penalty ---------------------------------------------------------------------------------


def test_the_mean_replacement_penalty_is_the_loss_with_the_activation_replaced() -> None:
    model = randomize_(Chain(nn.Conv2d(6, 4, 3, padding=1), 4), seed=5).double().eval()
    batches = images(*SHAPE)
    network = read_network(model, [batches[0][0]])
    seen = look(network, ([x] for x, _ in batches))
    found = penalties(network, seen, partial(iter, batches), progress=lambda _: None)
    x, labels = (torch.cat(parts) for parts in zip(*batches, strict=False))
    loss = functional.cross_entropy(model(x), labels)
    expected = []
    for layer, after in ((model.stem, lambda a: a), (model.middle, torch.relu)):
        for channel in range(layer.out_channels):

            def replaced(_, __, made: Tensor, channel=channel, after=after) -> Tensor:
                made = after(made)
                # The last layer is read after its pool: the mean over images is the same.
                made[:, channel] = made[:, channel].mean()
                return made

            hook = layer.register_forward_hook(replaced)
            with torch.no_grad():
                expected.append(float(functional.cross_entropy(model(x), labels) - loss))
            hook.remove()
    assert found.tolist() == pytest.approx(expected, abs=1e-10)


def test_a_threshold_takes_channels_whose_mean_is_as_good_and_no_others() -> None:
    model = randomize_(Chain(nn.Conv2d(6, 5, 1), 5), seed=4).double().eval()
    with torch.no_grad():
        model.stem.weight[3] *= 1e-4
    batches = images(*SHAPE)
    _, dead = dead_of(model, batches, threshold=1e-4)
    assert {group.name: group.below for group in dead.report.groups} == {"stem": (3,)}
    _, none = dead_of(model, batches)
    assert none.report.groups == ()
    result = prunecli.prune(
        model, batches[0][0], dead=True, dead_threshold=1e-4, batches=partial(iter, batches)
    )
    scores = result.report.dead.scores
    assert abs(scores.loss_after - scores.loss_before) < 1e-4
    assert result.report.groups[0].after == 5


# --- without images ------------------------------------------------------------------------------


def test_without_images_only_what_the_weights_alone_decide_is_dead() -> None:
    model = wired()
    with torch.no_grad():
        model.head.weight[:, 2] = 0
        model.side.weight[1] *= 1e-9
    x = images(*SHAPE)[0][0]
    network, dead = dead_of(model, None)
    found = {group.name: (group.constant, group.unread) for group in dead.report.groups}
    # Saturated units (inner 5, hidden 4, joined 1) depend on the images.
    assert found == {"stem": ((2,), ()), "side": ((3,), ()), "hidden": ((), (2,))}
    assert dead.report.images == 0
    after, _ = without_dead(network, dead)
    assert torch.allclose(after.model(50 * x), model(50 * x), rtol=1e-10)


def test_a_constant_that_an_image_scales_is_not_dead() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.gate = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 1, 1)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.stem(x) * self.gate(x).sigmoid()).mean((2, 3)))

    model = randomize_(Gated(), seed=1).double().eval()
    plant(model.stem, 1, 1.0)
    assert dead_of(model, None)[1].report.groups == ()
    assert dead_of(model, images(*SHAPE))[1].report.groups == ()


def test_a_value_that_is_written_in_place_is_looked_at_when_it_is_read() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.reader = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 5, 1)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            moved = torch.zeros_like(x)
            moved[:, :, 1:] = x[:, :, :-1]
            return self.head(self.reader(moved).mean((2, 3)))

    model = randomize_(InPlace(), seed=1).double().eval()
    assert dead_of(model, images(*SHAPE))[1].report.groups == ()


# --- random networks -----------------------------------------------------------------------------


def planted(seed: int) -> tuple[nn.Module, int]:
    """Return a random network with constants planted into some channel of every other group."""
    steps, head = draw(seed)
    model = network(steps, head=head, seed=seed).double()
    graph = read_network(model, [torch.zeros(2, 3, SIDE, SIDE, dtype=F64)])
    random = np.random.default_rng(seed)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    count = 0
    for group in graph.coupling.groups:
        for atom in group.first + random.permutation(group.width)[: 1 + group.width // 3]:
            for name, dim in group.producers:
                rows = np.flatnonzero((graph.coupling.tensors[name][dim] == atom).any(0))
                bias = tensors.get(name.removesuffix("weight") + "bias")
                with torch.no_grad():
                    tensors[name].movedim(dim, 0)[rows] = 0
                    if bias is not None and bias.numel() > max(rows):
                        bias[rows] = float(random.normal())
            count += 1
    return model, count


@pytest.mark.parametrize("first", range(0, 24, 8))
def test_random_networks_lose_planted_channels_without_a_change(first: int) -> None:
    gone = of = 0
    for seed in range(first, first + 8):
        model, count = planted(seed)
        x = torch.randn(6, 3, SIDE, SIDE, dtype=F64, generator=torch.Generator().manual_seed(1))
        batches = partial(iter, [(x, torch.zeros(6, dtype=torch.int64))])
        graph = read_network(model, [x[:2]])
        for given in (None, batches):
            dead = find_dead(graph, batches=given)
            after, _ = without_dead(graph, dead)
            assert_same(after.model(x), model(x), 1e-10, seed)
        of += count
        gone += int(dead.gone.sum())
        if seed % 2 or not dead.gone.any() or is_constant(model(x)):
            continue
        result = prunecli.prune(model, x[:2], dead=True, batches=batches)
        assert_same(result.model(x), model(x), 1e-9, seed)
        assert result.report.verified is not None
    assert gone > of / 2, (gone, of)


def is_constant(outputs: Tensor | tuple[Tensor, ...]) -> bool:
    """Tell whether what was planted leaves nothing of the input: then nothing can be proven."""
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    return bool((first - first[:1]).abs().max() <= 1e-9 * first.abs().max())


def assert_same(found, expected, tolerance: float, seed: int) -> None:
    pairs = (
        zip(found, expected, strict=False) if isinstance(expected, tuple) else [(found, expected)]
    )
    for one, other in pairs:
        scale = other.abs().max().item()
        assert (one - other).abs().max().item() <= tolerance * max(scale, 1.0), seed


# --- choices and mistakes ------------------------------------------------------------------------


def many_dead(count: int) -> nn.Module:
    model = randomize_(Chain(nn.Conv2d(6, 6, 1)), seed=1).double().eval()
    for channel in range(count):
        plant(model.stem, channel, 0.5 * channel)
    return model


def test_an_alignment_lets_dead_channels_stay() -> None:
    x = images(*SHAPE)[0][0]
    widths = {}
    for align in (None, 4, 3):
        result = prunecli.prune(many_dead(4), x, dead=True, align=align)
        assert torch.allclose(result.model(x), many_dead(4)(x), atol=1e-10)
        widths[align] = result.report.groups[0].after
    assert widths == {None: 2, 4: 4, 3: 3}
    with pytest.raises(GraphError, match="no channel is dead, or"):
        prunecli.prune(many_dead(4), x, dead=True, align=6)
    slow = prunecli.prune(many_dead(4), x, dead=True).report.warnings
    assert any("1 group is left with a width that is no multiple of 4" in text for text in slow)
    within = prunecli.prune(many_dead(4), x, dead=True, flops=0.9).report
    assert within.groups[0].after % 4
    assert any("no multiple of 4" in text for text in within.warnings)


def test_a_group_never_loses_its_last_channel() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.other = nn.Conv2d(2, 6, 1), nn.Conv2d(2, 2, 1)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.stem(x), self.other(x)], 1).mean((2, 3)))

    model = randomize_(Beside(), seed=1).double().eval()
    for channel in range(6):
        plant(model.stem, channel, 0.5 * channel)
    x = images(*SHAPE)[0][0]
    result = prunecli.prune(model, x, dead=True)
    assert result.report.groups[0].after == 1
    assert torch.allclose(result.model(x), model(x), atol=1e-10)
    assert prunecli.prune(model, x, dead=True, min_width=3).report.groups[0].after == 3


def test_what_is_excluded_keeps_its_dead_channels() -> None:
    with pytest.raises(GraphError, match="no channel is dead") as caught:
        prunecli.prune(many_dead(3), images(*SHAPE)[0][0], dead=True, exclude=["stem"])
    assert caught.value.code == "NOTHING_DEAD"


@pytest.mark.parametrize("allocation", ["uniform", "global", "greedy"])
def test_dead_channels_go_before_the_budget_takes_others(allocation: str) -> None:
    model = wired()
    x = images(*SHAPE)[0][0]
    result = prunecli.prune(
        model, x, dead=True, flops=0.6, align=1, allocation=allocation, signal="random"
    )
    dead = {group.name: group.constant for group in result.report.dead.groups}
    assert dead == {"stem": (2,), "side": (3,)}
    for name, gone in dead.items():
        assert not set(gone) & set(result.plan.keep[name])
    assert 0.4 < result.report.cost.kept["flops"] <= 0.6


def test_a_layer_of_which_every_channel_is_dead_keeps_one_that_holds_nothing() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(2, 6, 1), nn.Linear(6, 3)
            self.reduce, self.excite = nn.Linear(6, 4), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).mean((2, 3))
            return self.head(x * self.excite(self.reduce(x).relu()).sigmoid())

    model = randomize_(Gate(), seed=1).double().eval()
    with torch.no_grad():
        model.reduce.bias.copy_(torch.tensor([-99.0, -99, -99, 0]))
    plant(model.reduce, 3, 0.8)
    batches = images(*SHAPE)
    x = batches[0][0]
    result = prunecli.prune(model, x, dead=True, batches=partial(iter, batches))
    assert result.report.groups[1].after == 1
    assert not result.model.excite.weight.any()
    assert torch.allclose(result.model(x), model(x), atol=1e-10)


def test_a_threshold_holds_for_all_channels_together_too() -> None:
    model = randomize_(Chain(nn.Conv2d(6, 5, 1), 5), seed=4).double().eval()
    with torch.no_grad():
        model.head.weight *= 20
        # With the network's own answers as labels, whatever is lost raises the loss.
        batches = [(x, model(x).argmax(1)) for x, _ in images(*SHAPE)]
    network = read_network(model, [batches[0][0]])
    seen = look(network, ([x] for x, _ in batches))
    alone = np.abs(penalties(network, seen, partial(iter, batches), progress=lambda _: None))
    threshold = float(np.median(alone))
    dead = find_dead(network, batches=partial(iter, batches), threshold=threshold)
    _, report = without_dead(network, dead, images=Images(partial(iter, batches)))
    below = sum(len(group.below) for group in report.groups)
    assert below == (alone <= threshold).sum()
    assert 0 < dead.gone.sum() < below
    assert report.scores.loss_after - report.scores.loss_before <= threshold
    assert TOGETHER in {reason for group in report.groups for reason in group.stays.values()}
    # Those of the least penalty go.
    assert alone[dead.gone].max() <= alone[~dead.gone].min()


def test_a_budget_that_dead_channels_alone_keep_takes_no_others() -> None:
    result = prunecli.prune(many_dead(3), images(*SHAPE)[0][0], dead=True, params=0.95, align=1)
    assert result.report.groups[0].after == 3
    assert result.report.groups[1].after == 6


@pytest.mark.parametrize("allocation", ["uniform", "global", "greedy"])
def test_a_budget_keeps_the_channel_that_carries_the_constants_of_others(allocation: str) -> None:
    model = randomize_(Chain(nn.Conv2d(6, 6, 3, padding=1)), seed=1).double().eval()
    for channel in (0, 4):
        plant(model.stem, channel, 3.0 + channel)
    x = images(*SHAPE)[0][0]
    result = prunecli.prune(model, x, dead=True, flops=0.45, align=1, allocation=allocation)
    assert result.report.dead.groups[0].stays == {"4": CARRIES}
    assert 0 not in result.plan.keep["stem"]
    assert 4 in result.plan.keep["stem"]
    assert len(result.plan.keep["stem"]) < 5


def test_dead_channels_that_stay_for_a_width_hold_nothing_any_more() -> None:
    model, x = many_dead(3), images(*SHAPE)[0][0]
    result = prunecli.prune(model, x, dead=True, align=2)
    assert result.report.groups[0].after == 4
    (group,) = result.report.dead.groups
    (index,) = map(int, group.stays)
    assert not result.model.middle.weight[:, result.plan.keep["stem"].index(index)].any()
    cut = prunecli.prune(model, x, dead=True, align=2, params=0.7)
    assert index not in cut.plan.keep["stem"]


def test_a_network_without_dead_channels_is_said_to_have_none() -> None:
    x = images(*SHAPE)[0][0]
    with pytest.raises(GraphError, match="no channel is dead") as caught:
        prunecli.prune(many_dead(0), x, dead=True)
    assert "the weights alone" in caught.value.where
    result = prunecli.prune(many_dead(0), x, dead=True, flops=0.6, align=1)
    assert any("no dead channel" in text for text in result.report.warnings)


@pytest.mark.parametrize(
    ("choices", "code"),
    [
        ({"dead": True, "dead_threshold": 0.1}, "DEAD_NEEDS_DATA"),
        ({"dead": True, "dead_threshold": -1.0}, "BAD_OPTION"),
        ({"dead": True, "dead_threshold": float("nan")}, "BAD_OPTION"),
        ({"flops": 0.5, "dead_threshold": 0.1}, "OPTION_WITHOUT_EFFECT"),
        ({}, "NO_BUDGET"),
        ({"dead": True, "batches": lambda: iter(())}, "DEAD_NEEDS_DATA"),
    ],
)
def test_a_choice_that_means_nothing_is_refused_before_any_work(choices: dict, code: str) -> None:
    with pytest.raises(InputError) as caught:
        prunecli.prune(many_dead(3), images(*SHAPE)[0][0], **choices)
    assert caught.value.code == code


def test_a_dry_run_lists_the_dead_and_the_model_stays_as_it_is() -> None:
    model, batches = wired(), images(*SHAPE)
    state = copy.deepcopy(model.state_dict())
    result = prunecli.prune(
        model, batches[0][0], dead=True, dry_run=True, batches=partial(iter, batches)
    )
    assert result.model is None
    assert result.report.dead.removable == 5
    assert result.report.dead.images == 12
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


def test_norms_over_channels_and_attention_are_left_alone_and_counted() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Linear(4, 6), nn.LayerNorm(6)
            self.query, self.key = nn.Linear(6, 5), nn.Linear(6, 5)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            weights = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1)
            return self.head((weights @ x).mean(1))

    model = randomize_(Tokens(), seed=1).double().eval()
    plant(model.query, 1, 1.0)
    plant(model.stem, 1, 1.0)
    network = read_network(model, [torch.zeros(2, 7, 4, dtype=F64)])
    report = find_dead(network, batches=partial(iter, images(7, 4))).report
    assert report.groups == ()
    assert report.not_looked_at == {
        "a norm runs over its channels": 6,
        "a matrix product sums over its channels": 5,
    }


def test_analyze_lists_dead_channels_with_and_without_images() -> None:
    model, batches = wired(), images(*SHAPE)
    analysis = prunecli.analyze(model, batches[0][0])
    assert {group.name for group in analysis.dead.groups} == {"stem", "side"}
    seen = prunecli.analyze(model, batches[0][0], batches=partial(iter, batches))
    assert {group.name: group.constant for group in seen.dead.groups} == {
        "stem": (2,), "inner": (5,), "side": (3,), "joined": (1,), "hidden": (4,),
    }  # fmt: skip
    (inner,) = (group for group in seen.dead.groups if group.name == "inner")
    (whole,) = (group for group in seen.groups if group.name == "inner")
    assert inner.flops_share == pytest.approx(whole.flops_share / 8)


def test_kept_groups_are_not_searched() -> None:
    _network, dead = dead_of(many_dead(3), None, kept=Kept(frozenset({"stem"})))
    assert not dead.gone.any()
    assert dead.report.groups == ()


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_published_checkpoints_lose_their_dead_channels_without_a_change(
    shared_dir, name: str
) -> None:
    model = prunecli.load(shared_dir / "checkpoints" / f"{name}.th")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 3, 32, 32, generator=generator)
    before = model(x).detach()
    result = prunecli.prune(model, x[:2], dead=True, batches=lambda: iter([(x, before.argmax(1))]))
    assert torch.allclose(result.model(x), before, atol=1e-4 * float(before.abs().max()))
    assert result.report.dead.removable > 10
    assert result.report.cost.kept["flops"] < 0.97
