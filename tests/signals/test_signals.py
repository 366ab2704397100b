"""Signals against published numbers and against formulas written down with autograd."""

from __future__ import annotations

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.errors import InputError
from prunecli.network.traced import Network, read_network
from prunecli.options import PruneOptions
from prunecli.pruning.scoring import score_network
from prunecli.signals import (
    AGGREGATES,
    BASE_INPUTS,
    METRICS,
    PRESETS,
    REDUCTIONS,
    SCALINGS,
    distinct_grid,
    grid,
    needs_data,
    parse_signal,
)
from prunecli.signals.components import Scalars, ScalingFacts
from tests.support.weights import randomize_

# --- the published numbers -----------------------------------------------------------------------

MAPS = torch.tensor([[[1, -2], [0, 3]], [[2, 0], [1, 1]]], dtype=torch.float64)
"""Activations `[images, channels, positions]`."""
GRADIENTS = torch.tensor([[[0.5, 0.25], [-1, 0.5]], [[-0.5, 1], [2, -1]]], dtype=torch.float64)
WEIGHTS = torch.tensor([[-4, -3, -2, -1], [0, 1, 2, 3]], dtype=torch.float64)

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
    "positive": (
        (0.5 * 2, 0.75 * 2), (0.5 * 2, 0.75 * 2), (0.5 * 2, 0.75 * 2), (0.5 * 2, 0.75 * 2),
        (1.0, 2.5),
    ),
    "mean-replacement": (
        (0.65625, -0.9375), (1.03125, 1.4375), (0.642578125, 1.3203125),
        (0.65625, 1.1875), (0.650390625, 2.2890625),
    ),
}  # fmt: skip
"""Per metric the signal of both channels under every reduction, in the order of the table."""

KNOWN["hessian-approx1"] = KNOWN["hessian-approx2"]
KNOWN["taylor2-approx1"] = KNOWN["taylor2-approx2"]

ORDER = ("none", "l1", "l2", "abs-sum", "sqr-sum")


def reduced(metric: str, reduction: str, maps: Tensor = MAPS, gradients: Tensor = GRADIENTS):
    """Return `mean_n R(f(x, g))` from the public tables, for `[images, channels, positions]`."""
    rule = REDUCTIONS.get(reduction)
    # Curvatures that are squared gradients turn the first approximation into the second.
    scalars = METRICS.get(metric).function(Scalars(maps, gradients, gradients.square()))
    return rule.outside(rule.inside(scalars)).mean(0)


@pytest.mark.parametrize("metric", KNOWN)
def test_every_metric_under_every_reduction_gives_the_known_answers(metric: str) -> None:
    found = [reduced(metric, reduction).tolist() for reduction in ORDER]
    assert found == [pytest.approx(pair, abs=1e-9) for pair in KNOWN[metric]]


def test_the_known_answers_cover_every_entry_of_the_tables() -> None:
    assert {entry.name for entry in METRICS} == set(KNOWN)
    assert {entry.name for entry in REDUCTIONS} == {*ORDER, "abs-sum-kernels", "sqr-sum-kernels"}
    assert {entry.name for entry in BASE_INPUTS} >= {"weight", "activation"}
    assert {entry.name for entry in SCALINGS} == {
        "none", "l0", "l0-adjusted", "l0-2019", "l1", "l2", "weights-removed", "flops-removed",
        "latency-removed",
    }  # fmt: skip


def test_the_grid_has_396_distinct_points() -> None:
    assert len(grid()) == len(set(grid())) == 2 * 7 * 5 * 6 == 420
    assert len(distinct_grid()) == len(set(distinct_grid())) == 396
    assert all(parse_signal(str(signal)) == signal for signal in grid())
    left_out = set(grid()) - set(distinct_grid())
    for signal in left_out:
        rest = reduced(signal.pointwise_metric, signal.reduction)
        assert rest.tolist() == reduced(signal.pointwise_metric, "none").tolist()


def test_the_saliencies_of_dead_units_have_the_known_answers() -> None:
    assert (reduced("mean-replacement", "none") / 2).tolist() == [0.328125, -0.46875]
    assert (reduced("mean-replacement", "abs-sum") / 2).tolist() == [0.328125, 0.59375]
    # The thesis sums absolute values over images too.
    assert (reduced("mean-replacement", "l1") * 2).tolist() == [2.0625, 2.875]
    assert (reduced("taylor", "none") / 2).tolist() == [0.25, -0.625]
    assert (reduced("taylor", "abs-sum") / 2).tolist() == [0.25, 0.625]


def test_the_fraction_of_positives_has_the_known_answer() -> None:
    assert (reduced("positive", "none") / 2).tolist() == [0.5, 0.75]


def test_variants_of_taylor_that_are_not_the_paper_have_other_numbers() -> None:
    elementwise = reduced("taylor", "l1") / 2
    assert elementwise.tolist() == [0.5, 1.125]
    after_the_batch = -reduced("taylor", "none") / 2
    assert after_the_batch.tolist() == [-0.25, 0.625]


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("none", (0.5, 1.25)),
        ("l0", (0.25, 0.625)),
        ("l0-adjusted", (0.5, 0.625)),
        ("l0-2019", (0.5 / 6, 1.25 / 6)),
        ("l1", (0.285714286, 0.714285714)),
        ("l2", (0.371390676, 0.928476691)),
        ("weights-removed", (0.5 / 73, 1.25 / 197)),
        ("flops-removed", (0.5 / 8, 1.25 / 16)),
        ("latency-removed", (0.5 / 0.5, 1.25 / 0.25)),
    ],
)
def test_every_scaling_gives_the_known_answers(scaling: str, expected: tuple[float, float]) -> None:
    facts = ScalingFacts(
        *(
            torch.tensor(pair).double()
            for pair in ([2.0, 2.0], [1.0, 2.0], [3.0, 3.0], [73, 197], [8, 16], [0.5, 0.25])
        )
    )
    found = SCALINGS.get(scaling)(reduced("taylor", "abs-sum"), facts)
    assert found.tolist() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("scaling", SCALINGS.names())
def test_a_scaling_by_zero_divides_by_one(scaling: str) -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    assert SCALINGS.get(scaling)(zero, ScalingFacts(*[zero] * 6)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("reduction", "expected"), [("l1", (10, 6)), ("l2", (30, 14)), ("abs-sum", (10, 6))]
)
def test_weights_give_the_known_answers(reduction: str, expected: tuple[int, int]) -> None:
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 3)).double()
    model[0].weight.data = WEIGHTS
    found = saliency(read(model, 4), f"weight/value/{reduction}/none")
    assert found.tolist() == list(expected)


def test_sums_by_kernel_are_those_of_the_helper_of_the_same_authors() -> None:
    model = nn.Sequential(nn.Conv2d(2, 1, (1, 2)), nn.Flatten(), nn.Linear(1, 2)).double()
    model[0].weight.data = torch.tensor([[[[-4.0, 3.0]], [[1.0, 1.0]]]]).double()
    model[0].bias.data = torch.tensor([-1.0]).double()
    network = read(model, 2, 1, 2)
    # |-4 + 3| + |1 + 1| and the bias beside them; all together they would be |-4 + 3 + 2 - 1| = 0.
    expected = {"abs-sum": 0, "abs-sum-kernels": 1 + 2 + 1, "sqr-sum-kernels": 1 + 4 + 1}
    for reduction, value in expected.items():
        assert saliency(network, f"weight/value/{reduction}/none").tolist() == [value]
    # The weights that read a channel: each of the two readers is a kernel of its own.
    reading = saliency(network, "weight-input/value/abs-sum-kernels/none")
    assert reading.tolist() == pytest.approx([model[2].weight.detach().abs().sum().item()])


def test_sums_by_kernel_of_a_feature_map_are_its_sum() -> None:
    network = small()
    for reduction in ("abs-sum", "sqr-sum"):
        names = [f"activation/taylor/{which}/none" for which in (reduction, f"{reduction}-kernels")]
        whole, by_kernel = (saliency(network, name, [images()]) for name in names)
        assert by_kernel == pytest.approx(whole, rel=1e-4)


def test_the_cardinality_of_2019_counts_the_inputs_of_the_layer_behind_a_feature_map() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(),
                          nn.Linear(6 * 4, 3))  # fmt: skip
    network = read(randomize_(model), 2, 6, 6)
    x, labels = images(4)
    batch = [(functional.pad(x, (1, 1, 1, 1)), labels)]
    names = [f"activation/value/l1/{scaling}" for scaling in ("l0", "l0-2019")]
    plain, of_2019 = (by_group(network, saliency(network, name, batch)) for name in names)
    assert of_2019["0"] == pytest.approx(np.asarray(plain["0"]) / 2)
    assert of_2019["2"] == pytest.approx(np.asarray(plain["2"]) / 4)
    names = [f"weight/value/l1/{scaling}" for scaling in ("l0", "l0-2019")]
    assert len({tuple(saliency(network, name)) for name in names}) == 1


def test_the_square_of_the_batch_mean_and_the_mean_loss_are_not_what_fisher_means() -> None:
    fisher = 0.5 * reduced("taylor", "sqr-sum")
    assert fisher.tolist() == [0.25, 0.8125]
    of_mean_loss = 0.5 * reduced("taylor", "sqr-sum", gradients=GRADIENTS / 2)
    assert of_mean_loss.tolist() == [0.0625, 0.203125]


# --- a small network with a residual group, a grouped layer and a flattened head -----------------


class Net(nn.Module):
    """`stem` and `second` make one coupled group; `grouped` two by two; `wide` ends flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.second = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.grouped, self.wide = nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 5, 1)
        self.fc = nn.Linear(5 * 4, 3)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Return what every layer reads, by the name of the reader."""
        a = self.norm(self.stem(x)).relu()
        b = self.first(a).relu()
        c = a + self.second(b)
        d = self.grouped(c).sigmoid()
        e = functional.max_pool2d(self.wide(d), 1).relu().flatten(1)
        return {"first": a, "second": b, "grouped": c, "wide": d, "fc": e}

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x)["fc"])


def net(seed: int = 0) -> Net:
    return randomize_(Net(), seed=seed).eval()


def images(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    return torch.randn(n, 2, 4, 4, generator=generator), labels


def read(model: nn.Module, *shape: int) -> Network:
    kind = next(model.parameters()).dtype
    return read_network(model.eval(), [torch.zeros(1, *shape, dtype=kind)])


@functools.cache
def small() -> Network:
    return read(net(), 2, 4, 4)


@functools.cache
def smallest() -> Network:
    return read(NETWORK_OF_ONE, 2, 4, 4)


def saliency(network: Network, signal: str, batches=None, **kwargs) -> np.ndarray:
    options = PruneOptions(signal=signal, **{"aggregate": "sum", **kwargs})
    given = None if batches is None else (lambda: iter(batches))
    return score_network(network, options, batches=given)


def by_group(network: Network, found: np.ndarray) -> dict[str, list[float]]:
    return {group.name: found[group.atoms].tolist() for group in network.coupling.groups}


def rows(layer: nn.Module) -> Tensor:
    """Return a layer's weights, with the bias if there is one, as one row a channel."""
    weight = layer.weight.detach().double().flatten(1)
    bias = layer.bias
    return weight if bias is None else torch.cat([weight, bias.detach().double()[:, None]], 1)


def by_hand(per_layer) -> dict[str, list[float]]:
    """Add up a formula over the layers of each group; `per_layer` takes rows and an owner array."""
    model = net()
    one_each = lambda layer: per_layer(rows(layer), torch.arange(len(layer.weight)))  # noqa: E731
    return {
        # The grouped layer keeps or loses its groups with the channels of the sum: 2 rows each.
        "stem": (
            one_each(model.stem) + one_each(model.second)
            + per_layer(rows(model.grouped), torch.arange(8) // 2)
        ).tolist(),
        "first": one_each(model.first).tolist(),
        "wide": one_each(model.wide).tolist(),
    }  # fmt: skip


def owned(values: Tensor, owner: Tensor) -> Tensor:
    return torch.zeros(int(owner.max()) + 1, dtype=torch.float64).index_add_(0, owner, values)


def test_the_groups_of_the_network_are_those_that_the_formulas_assume() -> None:
    coupling = small().coupling
    assert {group.name: group.width for group in coupling.groups} == {
        "stem": 4, "first": 6, "wide": 5,
    }  # fmt: skip
    assert {name for name, _ in coupling.groups[0].producers} == {
        "stem.weight", "second.weight", "grouped.weight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("signal", "formula"),
    [
        ("l1", lambda rows, owner: owned(rows.abs().sum(1), owner)),
        ("l2", lambda rows, owner: owned(rows.square().sum(1), owner)),
        ("magnitude", lambda rows, owner: owned(rows.square().sum(1) / rows.square().sum(), owner)),
        ("geometric-median", lambda rows, owner: owned(
            (rows[:, None] - rows[None]).square().sum(-1).sqrt().sum(1), owner)),
    ],
)  # fmt: skip
def test_a_signal_of_the_weights_equals_its_formula(signal: str, formula) -> None:
    network = small()
    found = by_group(network, saliency(network, signal))
    expected = by_hand(formula)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-6, abs=1e-6), name


def test_batch_norm_scales_are_seen_only_where_there_is_a_batch_norm() -> None:
    model = net()
    network = read(model, 2, 4, 4)
    found = by_group(network, saliency(network, "bn-gamma"))
    assert found["stem"] == pytest.approx(model.norm.weight.abs().tolist())
    assert np.isnan(found["first"]).all()
    assert np.isnan(found["wide"]).all()


def test_random_is_seeded_and_differs_between_channels() -> None:
    network = small()
    first, again, other = (saliency(network, "random", seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()
    assert np.unique(first).size == first.size


def contributions() -> dict[str, Tensor]:
    """Return `-sum x g` per image and channel at every reader, one image at a time by autograd."""
    model, (x, labels) = net(), images()
    result: dict[str, list[Tensor]] = {}
    for image, label in zip(x, labels, strict=True):
        features = model.features(image[None])
        loss = functional.cross_entropy(model.fc(features["fc"]), label[None])
        gradients = torch.autograd.grad(loss, list(features.values()))
        for (name, value), gradient in zip(features.items(), gradients, strict=True):
            product = -(value * gradient).double().detach()[0]
            # The head reads 4 positions of each channel, flattened.
            result.setdefault(name, []).append(product.reshape(-1, 4 if name == "fc" else 1, *(
                product.shape[1:])).flatten(1).sum(1))  # fmt: skip
    stacked = {name: torch.stack(values) for name, values in result.items()}
    stacked["wide"] = stacked["wide"].reshape(-1, 4, 2).sum(2)
    return stacked


TAPS = {"stem": ("first", "grouped", "wide"), "first": ("second",), "wide": ("fc",)}
"""Which layers read the channels of each group."""


@pytest.mark.parametrize(
    ("signal", "formula"),
    [
        ("taylor", lambda c: c.abs().mean(0) / c.abs().mean(0).square().sum().sqrt()),
        ("taylor-share", lambda c: c.abs().mean(0) / c.abs().mean(0).sum()),
        ("fisher", lambda c: c.square().mean(0)),
    ],
)
def test_a_signal_of_the_images_equals_its_formula(signal: str, formula) -> None:
    network = small()
    found = by_group(network, saliency(network, signal, [images()]))
    sites = contributions()
    for name, taps in TAPS.items():
        expected = sum(formula(sites[tap]) for tap in taps)
        assert found[name] == pytest.approx(expected.tolist(), rel=1e-4), name


FIRST_ORDER = [name for name in KNOWN if not name.endswith("approx1")]
GRID = [
    "/".join(parts)
    for parts in itertools.product(["activation"], FIRST_ORDER, ORDER, ["none", "l0", "l1", "l2"])
] + [f"weight/value/{reduction}/{scaling}" for reduction in ORDER for scaling in ("none", "l0")]


@pytest.mark.parametrize("signal", GRID)
def test_every_point_of_the_grid_equals_its_formula(signal: str) -> None:
    _, metric, reduction, scaling = signal.split("/")
    network = smallest()
    found = saliency(network, signal, [images()])
    if signal.startswith("weight"):
        x = rows(NETWORK_OF_ONE[0])[None]
        expected = reduced(metric, reduction, x, x)
    else:
        x, labels = images()
        maps = NETWORK_OF_ONE[1](NETWORK_OF_ONE[0](x))
        logits = NETWORK_OF_ONE[2:](maps)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        (gradients,) = torch.autograd.grad(loss, maps)
        x = maps.detach().double().flatten(2)
        expected = reduced(metric, reduction, x, gradients.double().flatten(2))
    divisor = {
        "none": 1, "l0": x.shape[-1], "l1": expected.abs().sum(), "l2": expected.norm(),
    }[scaling]  # fmt: skip
    assert found.tolist() == pytest.approx((expected / divisor).tolist(), rel=1e-4, abs=1e-7)


NETWORK_OF_ONE = randomize_(
    nn.Sequential(nn.Conv2d(2, 7, 3), nn.Tanh(), nn.Conv2d(7, 3, 2), nn.Flatten()), seed=4
)
"""One channel group, read by one layer."""


# --- what must hold for every signal -------------------------------------------------------------

# What looks at a whole batch at once says something else of its halves.
OF_A_BATCH = ["mean-replacement", "snip", "taylor-2019"]
# What looks at positions drawn at random draws others in halves of a batch.
OF_DRAWS = ["reconstruction"]
DATA_SIGNALS = [
    *(e.name for e in PRESETS if needs_data(e.name) and e.name not in OF_A_BATCH + OF_DRAWS),
    "activation/taylor2-approx2/l1/none",
]
WEIGHT_SIGNALS = [e.name for e in PRESETS if not needs_data(e.name) and e.name != "random"]


@pytest.mark.parametrize("signal", DATA_SIGNALS)
def test_splitting_a_batch_changes_nothing(signal: str) -> None:
    network, (x, labels) = small(), images(6)
    whole = saliency(network, signal, [(x, labels)])
    halves = saliency(network, signal, list(zip(x.split(3), labels.split(3), strict=True)))
    uneven = saliency(network, signal, list(zip(x.split(4), labels.split(4), strict=True)))
    singles = saliency(network, signal, list(zip(x.split(1), labels.split(1), strict=True)))
    for other in (halves, uneven, singles):
        assert other == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("signal", OF_A_BATCH)
def test_signals_of_a_whole_batch_depend_on_what_is_in_it(signal: str) -> None:
    network, (x, labels) = small(), images(6)
    whole = saliency(network, signal, [(x, labels)])
    halves = saliency(network, signal, list(zip(x.split(3), labels.split(3), strict=True)))
    assert halves != pytest.approx(whole, rel=1e-2)


def test_removal_of_maps_behind_a_relu_is_taylor_before_its_norm() -> None:
    """The product of value and gradient is the same on either side of a ReLU."""
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 2), nn.Flatten())
    network = read(randomize_(model), 2, 4, 4)
    removal, before, taylor = (
        saliency(network, name, [images()])
        for name in ("removal", "activation-before/taylor/abs-sum/l0", "taylor")
    )
    assert before == pytest.approx(removal, rel=1e-5)
    assert removal / np.linalg.norm(removal) == pytest.approx(taylor, rel=1e-5)


def test_the_names_of_the_literature_are_the_points_of_the_grid_that_they_stand_for() -> None:
    network, batches = small(), [images()]

    def of(signal: str) -> np.ndarray:
        return saliency(network, signal, batches)

    assert of("mean-activation") == pytest.approx(of("activation/value/l1/l0"))
    assert of("min-weight") == pytest.approx(of("weight/value/l2/l0"))
    assert of("average-gradient") == pytest.approx(of("activation/gradient/abs-sum/l0"))
    assert of("fisher") == pytest.approx(of("activation/taylor/sqr-sum/none"))
    assert of("obd") == pytest.approx(of("weight/hessian-approx1/none/none"))


@pytest.mark.parametrize("signal", DATA_SIGNALS)
def test_images_seen_twice_count_once(signal: str) -> None:
    network, (x, labels) = small(), images(4)
    once = saliency(network, signal, [(x, labels)])
    twice = saliency(network, signal, [(torch.cat([x, x]), torch.cat([labels, labels]))])
    assert twice == pytest.approx(once, rel=1e-4)


@pytest.mark.parametrize("signal", [*DATA_SIGNALS, *WEIGHT_SIGNALS])
def test_permuting_channels_permutes_the_signal(signal: str) -> None:
    model = net()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = copy.deepcopy(model)
    other.first.weight.data = model.first.weight.data[order]
    other.first.bias.data = model.first.bias.data[order]
    other.second.weight.data = model.second.weight.data[:, order]
    before, after = (
        by_group(network, saliency(network, signal, [images()]))
        for network in (read(model, 2, 4, 4), read(other, 2, 4, 4))
    )
    moved = np.asarray(before["first"])[order.numpy()]
    assert after["first"] == pytest.approx(moved, rel=1e-4, nan_ok=True)
    assert after["stem"] == pytest.approx(before["stem"], rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("signal", ["taylor", "weight/value/l1/l2", "activation/gradient/l1/l2"])
def test_signals_scaled_by_l2_have_unit_norm_in_every_layer(signal: str) -> None:
    network = small()
    found = by_group(network, saliency(network, signal, [images()]))
    for name in ("first", "wide"):
        assert np.linalg.norm(found[name]) == pytest.approx(1.0)


def test_weights_removed_scales_by_what_goes_with_a_channel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5, 2))
    network = read(randomize_(model), 3, 5, 5)
    plain = by_group(network, saliency(network, "weight/value/l1/none"))["0"]
    scaled = by_group(network, saliency(network, "weight/value/l1/weights-removed"))["0"]
    assert scaled == pytest.approx(np.asarray(plain) / (3 * 9 + 1 + 5 * 9))


def test_scoring_needs_no_gradients_of_the_model_and_leaves_none() -> None:
    model = net().requires_grad_(requires_grad=False)
    before = copy.deepcopy(model.state_dict())
    found = saliency(read(model, 2, 4, 4), "taylor", [images()])
    assert np.isfinite(found).all()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- aggregates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aggregate", "function"),
    [("sum", sum), ("mean", lambda s: sum(s) / len(s)), ("max", max), ("first", lambda s: s[0])],
)
def test_an_aggregate_joins_the_sites_of_a_group(aggregate: str, function) -> None:
    network = small()
    found = by_group(network, saliency(network, "l1", aggregate=aggregate))["stem"]
    model = net()
    # In the order of their names.
    sites = [
        owned(rows(model.grouped).abs().sum(1), torch.arange(8) // 2).tolist(),
        rows(model.second).abs().sum(1).tolist(),
        rows(model.stem).abs().sum(1).tolist(),
    ]
    expected = [function(values) for values in zip(*sites, strict=True)]
    assert found == pytest.approx(expected)
    assert aggregate in {entry.name for entry in AGGREGATES}


# --- bad input -----------------------------------------------------------------------------------


def test_an_unknown_signal_names_the_nearest() -> None:
    with pytest.raises(InputError, match="tailor") as caught:
        prunecli.prune(net(), torch.zeros(1, 2, 4, 4), flops=0.5, signal="tailor")
    assert "taylor" in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("text", ["weight/value", "a/b/c/d/e", "//", "weight/value/l1/"])
def test_a_text_that_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_signal(text)


@pytest.mark.parametrize(
    "text",
    ["wait/value/l1/none", "weight/valu/l1/none", "weight/value/l3/none", "weight/value/l1/l9"],
)
def test_a_wrong_part_of_a_signal_is_named(text: str) -> None:
    wrong = next(part for part in text.split("/") if part in {"wait", "valu", "l3", "l9"})
    with pytest.raises(InputError, match=wrong):
        prunecli.prune(net(), torch.zeros(1, 2, 4, 4), flops=0.5, signal=text)


def test_which_signals_look_at_images_is_known_before_any_work() -> None:
    seen = {entry.name for entry in PRESETS if needs_data(entry.name)}
    without = {"magnitude", "l1", "l2", "min-weight", "bn-gamma", "geometric-median", "random",
               "lamp", "l1-input"}  # fmt: skip
    assert {entry.name for entry in PRESETS} - seen == without
    assert needs_data("weight/taylor/l1/none")
    assert needs_data("activation/value/l1/none")
    assert not needs_data("weight/value/l1/none")


def test_an_infinite_saliency_is_an_error_and_no_ranking() -> None:
    model = net().double()
    model.first.weight.data[2, 0] = 1e200
    with pytest.raises(InputError, match="not finite for 1 channels") as caught:
        saliency(read(model, 2, 4, 4), "l2")
    assert caught.value.code == "BAD_SALIENCY"


def test_a_saliency_that_is_not_a_number_is_an_error_and_not_an_unseen_group() -> None:
    x, labels = images()
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError) as caught:
        saliency(small(), "taylor", [(x, labels)])
    assert caught.value.code == "BAD_SALIENCY"


def test_no_images_at_all_are_an_error() -> None:
    with pytest.raises(InputError) as caught:
        saliency(small(), "taylor", [])
    assert caught.value.code == "SIGNAL_NEEDS_DATA"


# --- networks with several outputs or readers ----------------------------------------------------


def test_a_second_output_without_influence_on_the_loss_has_no_first_order_signal() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.aside = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 1)
            self.fc, self.other = nn.Linear(4, 3), nn.Linear(6, 3)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.fc(x.mean((2, 3))), self.other(self.aside(x).relu().mean((2, 3)))

    network = read(randomize_(Two()), 2, 4, 4)
    found = by_group(network, saliency(network, "fisher", [images()]))
    assert found["aside"] == [0.0] * 6
    assert min(found["stem"]) >= 0 < max(found["stem"])


def test_a_value_read_along_two_dimensions_is_scored_along_each() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.channels = nn.Linear(5, 6), nn.Linear(4, 7)
            self.along, self.across = nn.Conv1d(6, 3, 1), nn.Linear(7, 2)
            self.back = nn.Conv1d(6, 3, 1)

        def value(self, x):
            return self.channels(self.tokens(x).transpose(1, 2).tanh())

        def forward(self, x):
            x = self.value(x)
            return self.along(x).mean(2) + self.back(self.across(x)).mean(2)

    model = randomize_(Mixed()).eval()
    network = read_network(model, [torch.zeros(1, 4, 5)])
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    batches = [(x, torch.tensor([0, 1, 2]))]
    found = by_group(network, saliency(network, "activation/value/l1/none", batches))
    seen = model.value(x).detach().double().abs()
    beside = model.across(model.value(x)).detach().double().abs()
    tokens = seen.sum(2).mean(0) + beside.sum(2).mean(0)
    assert found["tokens"] == pytest.approx(tokens.tolist(), rel=1e-5)
    assert found["channels"] == pytest.approx(seen.sum(1).mean(0).tolist(), rel=1e-5)


def test_the_logits_are_the_first_tensor_of_a_nested_output() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x):
            return {"out": (self.net(x),), "features": x}

    network, plain = read(Named(), 2, 4, 4), small()
    found = saliency(network, "fisher", [images()])
    assert found == pytest.approx(saliency(plain, "fisher", [images()]), rel=1e-5)


def test_a_vector_that_makes_channels_is_scored_by_its_entries() -> None:
    class Rates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor([3.0, -1.0, 4.0, 2.0]))
            self.fc = nn.Linear(4, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc((x @ self.rate[None]).cos())

    network = read_network(Rates(), [torch.randn(3, 1)])
    (group,) = network.coupling.groups
    found = score_network(network, PruneOptions(signal="l1"))
    assert found[group.atoms].tolist() == [3.0, 1.0, 4.0, 2.0]
