"""Known answers through the whole road: a network with the published activations and gradients.

The tensors are worked out by hand: two images, two channels of two positions. A network of three
layers is made whose activations they are, and the gradients of whose loss.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli.cost.flops import count_flops
from prunecli.network.traced import Network, read_network
from prunecli.signals import METRICS, PRESETS, REDUCTIONS, distinct_grid, score_many
from prunecli.signals.components import Scalars
from prunecli.training.losses import distillation_loss
from tests.support.weights import randomize_

MAPS = torch.tensor([[[1, -2], [0, 3]], [[2, 0], [1, 1]]], dtype=torch.float64)
"""Activations `[images, channels, positions]`."""
GRADIENTS = torch.tensor([[[0.5, 0.25], [-1, 0.5]], [[-0.5, 1], [2, -1]]], dtype=torch.float64)
"""Gradients of the loss of each image by its activations."""
LABELS = torch.tensor([0, 0])

ORDER = ("none", "l1", "l2", "abs-sum", "sqr-sum")
KNOWN = {
    "value": ((0.5, 2.5), (2.5, 2.5), (4.5, 5.5), (1.5, 2.5), (2.5, 6.5)),
    "gradient": ((0.625, 0.25), (1.125, 2.25), (0.78125, 3.125), (0.625, 0.75), (0.40625, 0.625)),
    "taylor": ((0.5, -1.25), (1, 2.25), (0.75, 3.625), (0.5, 1.25), (0.5, 1.625)),
    "hessian-approx2": (
        (0.375, 1.8125), (0.375, 1.8125), (0.140625, 2.7578125), (0.375, 1.8125),
        (0.15625, 3.7578125),
    ),
    "taylor2-approx2": (
        (0.875, 0.5625), (1.25, 0.9375), (1.390625, 1.1953125), (0.875, 0.9375),
        (1.15625, 1.1953125),
    ),
}  # fmt: skip
"""Per metric the signal of both channels under every reduction, in the order of `ORDER`."""


def made() -> tuple[nn.Module, Tensor]:
    """Return a classifier with these activations and gradients, and the images that give them.

    Each of two hidden units is on for one image alone, where it is 1: the loss of that image is
    `log(1 + e)`, and its gradient is that unit's weights times `1 / (1 + 1 / e)`.
    """
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, (1, 2)), nn.ReLU(), nn.Flatten(),
        nn.Linear(2, 2, bias=False),
    ).double()  # fmt: skip
    weights = GRADIENTS / torch.ones(()).double().sigmoid()
    model[0].weight.data = torch.eye(2).double()[:, :, None, None]
    model[1].weight.data = weights[:, :, None]
    model[1].bias.data = 1 - (weights * MAPS).sum((1, 2))
    model[4].weight.data = torch.tensor([[0.0, 0], [1, 1]]).double()
    return model.eval(), MAPS[:, :, None]


@functools.cache
def published() -> tuple[Network, Tensor]:
    model, images = made()
    return read_network(model, [images[:1]]), images


def scores(network: Network, names, batches) -> dict[str, np.ndarray]:
    return score_many(
        list(names),
        network.trace,
        network.coupling,
        network.tensors,
        weights_removed=network.weights_removed(),
        flops_removed=network.flops_removed(),
        batches=lambda: iter(batches),
        aggregate="sum",
    )


def of_published(*names: str) -> list[list[float]]:
    network, images = published()
    found = scores(network, names, [(images, LABELS)])
    return [found[name][:2].tolist() for name in names]


def test_the_network_has_the_published_activations_and_gradients() -> None:
    model, images = made()
    read = model[0](images).detach().requires_grad_()
    loss = nn.functional.cross_entropy(model[1:](read), LABELS, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, read)
    torch.testing.assert_close(read.detach()[:, :, 0], MAPS)
    torch.testing.assert_close(gradient[:, :, 0], GRADIENTS)


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", KNOWN)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "single images"])
def test_a_real_network_gives_the_known_answers(metric: str, together: bool) -> None:
    network, images = published()
    whole = [(images, LABELS)]
    singles = [(image[None], label[None]) for image, label in zip(images, LABELS, strict=True)]
    names = [f"activation/{metric}/{reduction}/none" for reduction in ORDER]
    found = scores(network, names, whole if together else singles)
    for name, expected in zip(names, KNOWN[metric], strict=True):
        assert found[name][:2] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("taylor", (0.371391, 0.928477)),
        ("taylor-share", (0.285714, 0.714286)),
        ("removal", (0.25, 0.625)),
        ("fisher", (2 * 0.25, 2 * 0.8125)),
        ("mean-activation", (2.5 / 2, 2.5 / 2)),
        ("average-gradient", (0.625 / 2, 0.75 / 2)),
        ("apoz", (0.5, 0.75)),
        ("mean-replacement", (0.328125, 0.59375)),
        # Eight multiply-adds go with a channel: two positions, of two inputs and for two readers.
        ("fisher-per-flop", (0.5 / 8, 1.625 / 8)),
        ("fisher-flops", (0.25 - 8e-9, 0.8125 - 8e-9)),
        ("taylor-flops", (0.371391 - 8e-9, 0.928477 - 8e-9)),
    ],
)
def test_presets_give_the_known_answers(preset: str, expected: tuple[float, float]) -> None:
    assert of_published(preset)[0] == pytest.approx(expected, abs=1e-6)


def test_the_reduction_decides_which_channel_goes() -> None:
    first = [int(np.argmin(found)) for found in of_published(
        "activation/taylor/none/none", "activation/taylor/abs-sum/none",
        *(f"activation/taylor2-approx2/{reduction}/none" for reduction in ORDER),
    )]  # fmt: skip
    assert first == [1, 0, 1, 1, 1, 0, 0]


def reduced(metric: str, reduction: str, gradients: Tensor) -> Tensor:
    rule = REDUCTIONS.get(reduction)
    scalars = METRICS.get(metric).function(Scalars(MAPS, gradients, gradients.square()))
    return rule.outside(rule.inside(scalars)).mean(0)


def test_the_gradient_of_the_mean_loss_is_another_signal() -> None:
    """It scales `-x g` by 1 / images, Fisher by its square, and turns the mixed metric around."""
    (mixed,) = of_published("activation/taylor2-approx2/l1/none")
    wrong = reduced("taylor2-approx2", "l1", GRADIENTS / 2)
    assert wrong.tolist() == [0.5625, 0.796875]
    assert int(np.argmin(mixed)) == 1
    assert int(wrong.argmin()) == 0
    assert reduced("taylor", "abs-sum", GRADIENTS / 2).tolist() == [0.25, 0.625]
    assert (reduced("taylor", "sqr-sum", GRADIENTS / 2) / 2).tolist() == [0.0625, 0.203125]


def test_fisher_squares_before_the_mean_over_images() -> None:
    fisher, signed = of_published("fisher", "activation/taylor/none/none")
    assert (np.square(signed) / 2).tolist() == pytest.approx([0.125, 0.78125])
    assert (np.asarray(fisher) / 2).tolist() == pytest.approx([0.25, 0.8125])


def test_taylor_takes_absolute_values_after_the_positions_and_before_the_images() -> None:
    taylor, elementwise, signed = of_published(
        "removal", "activation/taylor/l1/l0", "activation/taylor/none/l0"
    )
    assert taylor == pytest.approx([0.25, 0.625])
    assert elementwise == pytest.approx([0.5, 1.125])
    assert [-value for value in signed] == pytest.approx([-0.25, 0.625])


def test_the_absolute_value_of_a_centred_gaussian_shows_its_spread() -> None:
    drawn = 3.0 * torch.randn(200_000, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    rule, one = REDUCTIONS.get("abs-sum"), torch.ones_like(drawn)
    found = rule.outside(rule.inside(METRICS.get("value").function(Scalars(drawn, one, one))))
    assert float(found.mean()) / 3 == pytest.approx(0.7978845608, rel=5e-3)
    assert math.sqrt(2 / math.pi) == pytest.approx(0.7978845608, abs=1e-10)


def test_equal_divisors_vanish_under_a_norm_of_the_layer() -> None:
    by_count, by_norm = of_published("activation/taylor/abs-sum/l0", "activation/taylor/abs-sum/l2")
    assert (np.asarray(by_count) / np.linalg.norm(by_count)).tolist() == pytest.approx(by_norm)


# --- costs and losses ----------------------------------------------------------------------------


def multiply_adds(model: nn.Module, *shape: int) -> float:
    return read_network(model.eval(), [torch.zeros(1, *shape)]).cost.dense["flops"]


def test_flops_of_the_paper_are_two_to_a_multiply_add() -> None:
    """A convolution counts its shift as one multiply-add; a linear layer `2 I - 1` per output."""
    conv = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 32 * 32, 1))
    head = 64 * 32 * 32
    assert 2 * (multiply_adds(conv, 3, 32, 32) - head + 64 * 32 * 32) == 3_670_016
    assert 2 * multiply_adds(nn.Sequential(nn.Linear(512, 10)), 512) - 10 == 10_230


def test_a_map_costs_its_own_filter_and_what_reads_it() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(128 * 256, 2),
    )  # fmt: skip
    network = read_network(model.eval(), [torch.zeros(1, 3, 32, 32)])
    own, read = 32 * 32 * (2 * 27 + 1), 2 * 16 * 16 * 128 * 9
    assert (own, read, own + read) == (56_320, 589_824, 646_144)
    assert 2 * network.flops_removed()[0] + 32 * 32 == own + read


def test_distillation_has_the_known_divergence_and_no_mean_over_classes() -> None:
    student, teacher = (
        torch.tensor([row], dtype=torch.float64) for row in ((2, 1, 0.5), (1.5, 1.2, 0.8))
    )
    soft = distillation_loss(student, teacher, torch.tensor([0]), temperature=2, alpha=1.0)
    assert float(soft) / 2**2 == pytest.approx(0.0170280, abs=1e-7)
    mixed = distillation_loss(student, teacher, torch.tensor([0]), temperature=2, alpha=0.7)
    assert float(mixed) == pytest.approx(0.1869890, abs=1e-7)
    over_classes = 0.3 * 0.4643688 + 0.7 * 0.0681120 / 3
    assert abs(float(mixed) - over_classes) > 0.03


# --- what holds across methods -------------------------------------------------------------------

IMAGES = 6


def chain(first: int = 4, second: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(second * 4, 3),
    )  # fmt: skip


@functools.cache
def small() -> tuple[nn.Sequential, Network, Tensor, Tensor]:
    model = randomize_(chain(), seed=5).double().eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 2, 6, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (IMAGES,), generator=generator)
    return model, read_network(model, [images[:1]]), images, labels


EVERYTHING = (
    *(str(signal) for signal in distinct_grid()),
    *(entry.name for entry in PRESETS if entry.name != "random"),
)


@functools.cache
def whole() -> dict[str, np.ndarray]:
    _, network, images, labels = small()
    return scores(network, EVERYTHING, [(images, labels)])


@pytest.mark.parametrize("size", [3, 2])
def test_only_signals_of_the_batch_change_when_it_is_split(size: int) -> None:
    """Those are the mean of a batch and the gradient of its mean loss, and say so.

    Other positions are drawn for `reconstruction` where images come in other batches.
    """
    _, network, images, labels = small()
    parts = list(zip(images.split(size), labels.split(size), strict=True))
    found = scores(network, EVERYTHING, parts)
    changed = {
        name for name in EVERYTHING
        if found[name] != pytest.approx(whole()[name], rel=1e-7, abs=1e-12, nan_ok=True)
    }  # fmt: skip
    assert changed == {"mean-replacement", "snip", "taylor-2019", "reconstruction"}


def test_permuting_the_channels_permutes_every_signal() -> None:
    model, _, images, labels = small()
    order = torch.tensor([2, 0, 3, 1])
    other = chain().double().eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name in (
        "0.weight",
        "0.bias",
        *(n for n in state if n.startswith("1.") and "num" not in n),
    ):
        state[name] = state[name][order]
    state["3.weight"] = state["3.weight"][:, order]
    other.load_state_dict(state)
    found = scores(read_network(other, [images[:1]]), EVERYTHING, [(images, labels)])
    for name in EVERYTHING:
        expected = np.concatenate([whole()[name][:4][order.numpy()], whole()[name][4:]])
        assert found[name] == pytest.approx(expected, rel=1e-7, abs=1e-12, nan_ok=True), name


def test_every_signal_scaled_by_l2_has_unit_norm_in_every_layer() -> None:
    scaled = [name for name in EVERYTHING if name.endswith("/l2")]
    assert len(scaled) == 66
    for name, layer in itertools.product(scaled, (slice(0, 4), slice(4, 9))):
        assert np.linalg.norm(whole()[name][layer]) == pytest.approx(1.0), name


@pytest.mark.parametrize("signal", ["l1", "taylor", "obd"])
def test_the_slim_network_is_the_dense_one_with_the_removed_channels_unread(signal: str) -> None:
    model, _, images, labels = small()
    result = prunecli.prune(
        model, images, flops=0.5, align=1, signal=signal, batches=lambda: [(images, labels)]
    )
    first, second = (
        sorted(set(range(width)) - set(result.plan.keep[name]))
        for name, width in (("0", 4), ("3", 5))
    )
    assert first or second
    masked = copy.deepcopy(model)
    masked[3].weight.data[:, first] = 0
    masked[6].weight.data.view(3, 5, 4)[:, second] = 0
    torch.testing.assert_close(result.model(images), masked(images), atol=1e-5, rtol=0)


def test_the_flops_of_every_removal_add_up_to_what_is_counted_afterwards() -> None:
    network = small()[1]
    widths, dense = network.cost.dense_widths.copy(), network.cost.dense["flops"]
    removed = 0.0
    for group in (0, 1, 1, 0, 1, 0, 1):
        removed += network.cost.gradient("flops", widths)[group]
        widths[group] -= 1
        counted = count_flops(chain(*widths.tolist()).eval(), (torch.zeros(1, 2, 6, 6),))
        assert dense - removed == pytest.approx(counted)


def test_removing_is_taylor_before_the_norm_of_the_layer() -> None:
    """On maps behind a ReLU, Evci's removal saliency is Molchanov's criterion."""
    removal, taylor = whole()["removal"], whole()["taylor"]
    for layer in (slice(0, 4), slice(4, 9)):
        assert removal[layer] / np.linalg.norm(removal[layer]) == pytest.approx(taylor[layer])
    assert whole()["activation/taylor/sqr-sum/none"] == pytest.approx(whole()["fisher"])
