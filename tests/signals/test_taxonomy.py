"""Every part of the taxonomy against a few lines of autograd, on every kind of layer."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli.signals
from prunecli import verbs
from prunecli.artefacts.dense import dense_shapes
from prunecli.budget import make_budget
from prunecli.checkpoint import load
from prunecli.network.traced import Network, read_network
from prunecli.options import PruneOptions
from prunecli.signals import METRICS, REDUCTIONS, SCALINGS, distinct_grid, parse_signal, score_many
from prunecli.signals.components import Scalars, ScalingFacts
from prunecli.signals.derive import batches_of
from prunecli.signals.places import read_taps
from prunecli.signals.presets import with_cost
from prunecli.signals.subject import Subject
from tests.support.weights import randomize_

IMAGES = 5


def read(model: nn.Module, *shape: int) -> Network:
    return read_network(
        model.eval(), [torch.zeros(1, *shape, dtype=next(model.parameters()).dtype)]
    )


def scores(network: Network, signals, batches=None, **options) -> dict[str, np.ndarray]:
    return score_many(
        list(signals),
        network.trace,
        network.coupling,
        network.tensors,
        weights_removed=network.weights_removed(),
        flops_removed=network.flops_removed(),
        batches=None if batches is None else lambda: iter(batches),
        aggregate="sum",
        **options,
    )


def batch(*shape: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(IMAGES, *shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (IMAGES,), generator=generator)


class Plain(nn.Module):
    """One group of channels with one producer and one reader, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def front(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def back(self, made: Tensor) -> Tensor:
        return self.norm(made).relu().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.back(self.front(x)))


def plain() -> Plain:
    return randomize_(Plain(), seed=3).double().eval()


Found = dict[str, tuple[Tensor, Tensor, Tensor]]


def derivatives(model: Plain, x: Tensor, labels: Tensor) -> Found:
    """Return value, gradient and curvature of all base inputs, one image at a time."""
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for image, label in zip(x, labels, strict=True):
        made = model.front(image[None])
        read_ = model.back(made)
        logits = model.head(read_)
        loss = functional.cross_entropy(logits, label[None])
        wanted = {"made": made, "read": read_, "weight": model.conv.weight, "bias": model.conv.bias,
                  "head": model.head.weight}  # fmt: skip
        gradients = torch.autograd.grad(loss, list(wanted.values()), retain_graph=True)
        p = logits.softmax(-1)[0]
        h: dict[str, Tensor] = {"logits": p * (1 - p)}
        h["read"] = (h["logits"] @ model.head.weight.square())[None]
        h["head"] = h["logits"][:, None] * read_.square()
        positions = made[0, 0].numel()
        scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
        on = (model.norm(made) > 0).double()
        h["made"] = on * (scale.square() * h["read"] / positions**2)[:, :, None, None]
        patches = functional.unfold(image[None], 3, padding=1, stride=2)[0].square()
        h["weight"] = (h["made"][0].flatten(1) @ patches.T).reshape(model.conv.weight.shape)
        h["bias"] = h["made"][0].sum((1, 2))
        for (name, _), gradient in zip(wanted.items(), gradients, strict=True):
            rows.setdefault(name, []).append((gradient.detach(), h[name].detach()))
    made = model.front(x)
    values = {"made": made, "read": model.back(made), "weight": model.conv.weight,
              "bias": model.conv.bias, "head": model.head.weight}  # fmt: skip
    found = {}
    for name, own in rows.items():
        join = torch.cat if name in {"made", "read"} else torch.stack
        g, h_ = (join([row[at] for row in own]) for at in (0, 1))
        found[name] = (values[name].detach(), g, h_)
    return found


def scalars(base: str, found: Found) -> Scalars:
    """Return a base input as `[images, 4 channels, positions]`."""
    if base.startswith("activation"):
        parts = found["made" if base == "activation-before" else "read"]
        return Scalars(*(part.reshape(IMAGES, 4, -1) for part in parts))
    if base.startswith("weight-input"):
        value, g, h = found["head"]
        parts = [value[None].mT, g.mT, h.mT]
    else:
        weights, biases = found["weight"], found["bias"]
        parts = [torch.cat([w.reshape(-1, 4, 18), b.reshape(-1, 4, 1)], 2)
                 for w, b in zip(weights, biases, strict=True)]  # fmt: skip
    if base.endswith("batch"):
        parts = [part.mean(0, keepdim=True) for part in parts]
    return Scalars(*parts)


def by_kernel(values: Tensor, base: str) -> tuple[Tensor, ...]:
    """Return the parts of `[images, channels, positions]` that are summed on their own."""
    if base.startswith("activation"):
        return (values,)
    # The convolution has two inputs of 3 x 3 and a bias; the head has three classes of one.
    return values.split(1 if base.startswith("weight-input") else 9, dim=-1)


BASES = ["activation", "activation-before", "weight", "weight-batch", "weight-input",
         "weight-input-batch"]  # fmt: skip


@pytest.mark.parametrize("base", BASES)
def test_every_metric_and_reduction_of_a_base_input_equals_its_formula(base: str) -> None:
    model, (x, labels) = plain(), batch(2, 6, 6)
    names = [
        f"{base}/{metric}/{reduction}/none"
        for metric, reduction in itertools.product(METRICS.names(), REDUCTIONS.names())
    ]
    found = scores(read(model, 2, 6, 6), names, [(x, labels)])
    truth = scalars(base, derivatives(model, x, labels))
    for name in names:
        _, metric, reduction, _ = name.split("/")
        rule, values = REDUCTIONS.get(reduction), METRICS.get(metric).function(truth)
        if rule.by_kernel:
            several = by_kernel(values, base)
            expected = sum(rule.outside(kernel.sum(-1)) for kernel in several).mean(0)
        else:
            expected = rule.outside(rule.inside(values)).mean(0)
        assert found[name].tolist() == pytest.approx(expected.tolist(), rel=1e-8, abs=1e-14), name


def test_all_396_points_are_computed_in_one_pass_and_equal_those_computed_alone() -> None:
    network, (x, labels) = read(plain(), 2, 6, 6), batch(2, 6, 6)
    names = [str(signal) for signal in distinct_grid()]
    passes = []

    def batches():
        passes.append(1)
        return iter([(x[:2], labels[:2]), (x[2:], labels[2:])])

    found = score_many(
        names, network.trace, network.coupling, network.tensors,
        weights_removed=network.weights_removed(), batches=batches,
    )  # fmt: skip
    assert len(passes) == 1
    assert len({tuple(values.tolist()) for values in found.values()}) > 200
    for name in names[::29]:
        alone = scores(network, [name], [(x, labels)])[name]
        assert found[name] == pytest.approx(alone, rel=1e-9), name


def test_adjusted_cardinality_counts_only_inputs_that_are_still_there() -> None:
    model = nn.Sequential(nn.Conv2d(2, 1, 3), nn.ReLU(), nn.Conv2d(1, 6, 3), nn.Flatten(),
                          nn.Linear(6, 3))  # fmt: skip
    network = read(randomize_(model), 2, 5, 5)
    before = {"0.weight": (4, 2, 3, 3), "2.weight": (6, 4, 3, 3)}
    names = [f"weight/value/l1/{scaling}" for scaling in ("none", "l0", "l0-adjusted")]
    found = scores(network, names, dense_shapes=before)
    second = network.coupling.groups[1].atoms
    assert found[names[1]][second] == pytest.approx(found[names[0]][second] / (4 * 9 + 1))
    assert found[names[2]][second] == pytest.approx(found[names[0]][second] / (1 * 9 + 1))


def test_the_shapes_before_an_earlier_cut_are_those_of_the_architecture(
    digits_checkpoint, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dense = load(digits_checkpoint).checkpoint
    assert dense_shapes(dense, None) == {}
    plain = PruneOptions(align=8)
    first = verbs.prune(digits_checkpoint, budget=make_budget(flops=0.5), options=plain).output
    cut = load(first).checkpoint
    assert dense_shapes(cut, None) == {name: value.shape for name, value in dense.tensors.items()}
    # A second cut by mean weights differs with what the mean is taken over.
    kept = {}
    for scaling in ("l0", "l0-adjusted"):
        options = PruneOptions(signal=f"weight/value/l1/{scaling}", allocation="global", align=1)
        report = verbs.prune(first, budget=make_budget(params=0.6), options=options, dry_run=True)
        kept[scaling] = report.plan["keep"]
    assert kept["l0"] != kept["l0-adjusted"]


def test_flops_removed_scales_by_the_multiply_adds_that_go_with_a_channel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5, 2))
    network = read(randomize_(model), 3, 5, 5)
    names = ["weight/value/l1/none", "weight/value/l1/flops-removed"]
    found = scores(network, names)
    own = network.coupling.groups[0].atoms
    per_channel = 9 * 3 * 9 + 1 * 5 * 9
    assert found[names[1]][own] == pytest.approx(found[names[0]][own] / per_channel)


# --- gradients of weights in every kind of layer -------------------------------------------------


class Layers(nn.Module):
    """Grouped, dilated, transposed and shared layers, and a product with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, (3, 1), padding=(1, 0), dilation=(1, 1))
        self.grouped = nn.Conv2d(4, 8, 3, groups=2, padding="same", dilation=2)
        self.depth = nn.Conv2d(8, 8, 3, groups=8, padding=1, stride=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.line = nn.Conv1d(4, 6, 3)
        self.shared = nn.Linear(6, 6)
        self.table = nn.Parameter(torch.zeros(6, 5))
        self.head = nn.Linear(5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth(self.grouped(self.first(x).relu()).tanh()).relu()
        x = self.line(self.up(x).sigmoid().flatten(2)).relu()
        x = self.shared(self.shared(x.transpose(1, 2)).tanh()).relu()
        return self.head((x @ self.table).tanh().mean(1))


@pytest.mark.parametrize("name", ["first", "grouped", "depth", "up", "line", "shared", "table"])
def test_gradients_of_single_images_are_right_in_every_kind_of_layer(name: str) -> None:
    model = randomize_(Layers(), seed=1).double().eval()
    network, (x, labels) = read(model, 2, 6, 6), batch(2, 6, 6)
    signal = parse_signal("weight/gradient/l2/none")
    subject = Subject(
        "", network.trace, network.coupling, network.tensors, network.weights_removed(),
        network.flops_removed(), network.flops_removed(), {},
        lambda: iter([(x, labels)]), "sum", 0, lambda _: None,
    )  # fmt: skip
    found = next(iter(batches_of([signal], subject)))
    own = [key for key in dict(model.named_parameters()) if key.split(".")[0] == name]
    for key in own:
        for at, (image, label) in enumerate(zip(x, labels, strict=True)):
            loss = functional.cross_entropy(model(image[None]), label[None])
            (expected,) = torch.autograd.grad(loss, [model.get_parameter(key)])
            gradient = found.derivative(key, slice(at, at + 1), curved=False)[0]
            assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-12), key


def test_batch_gradients_equal_single_ones_only_where_nothing_is_bent_by_an_image() -> None:
    network, given = read(plain(), 2, 6, 6), [batch(2, 6, 6)]
    same = [f"weight{which}/{metric}/none/none" for metric in ("taylor", "gradient")
            for which in ("", "-batch")]  # fmt: skip
    other = [f"weight{which}/taylor/l1/none" for which in ("", "-batch")]
    found = scores(network, [*same, *other], given)
    assert found[same[0]] == pytest.approx(found[same[1]], rel=1e-9)
    assert found[same[2]] == pytest.approx(found[same[3]], rel=1e-9)
    assert (found[other[0]] > found[other[1]]).all()


# --- curvature -----------------------------------------------------------------------------------


def test_curvature_under_a_linear_classifier_is_that_of_the_softmax_seen_through_it() -> None:
    model = randomize_(nn.Sequential(nn.Conv2d(2, 4, 1, bias=False), nn.Flatten(), nn.Linear(4, 3)))
    model, (x, labels) = model.double().eval(), batch(2, 1, 1)
    found = scores(read(model, 2, 1, 1), ["activation/hessian-approx1/none/none"], [(x, labels)])
    a = model[1](model[0](x)).detach()
    expected = torch.zeros(4, dtype=torch.float64)
    for row, label in zip(a, labels, strict=True):
        logits = model[2](row)
        whole = torch.autograd.functional.hessian(
            lambda z, y=label: functional.cross_entropy(z[None], y[None]), logits
        )
        # The propagation keeps the diagonal of the Hessian of the logits, and forgets the rest.
        expected += 0.5 * row.square() * (whole.diag() @ model[2].weight.square()) / IMAGES
    assert found.popitem()[1] == pytest.approx(expected.detach().numpy(), rel=1e-9)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(5, 6)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x).relu()
        return self.head(torch.cat([self.left(a), self.right(a)], 1).chunk(1, 1)[0])


def test_curvatures_add_up_where_a_network_branches() -> None:
    model = randomize_(Branches()).double().eval()
    x, labels = batch(4)
    network = read(model, 4)
    own = network.coupling.groups[0].atoms
    found = scores(network, ["activation/hessian-approx1/none/none"], [(x, labels)])
    a = model.stem(x).relu().detach()
    p = model(x).softmax(-1).detach()
    below = (p * (1 - p)) @ model.head.weight.square()
    h = below[:, :6] @ model.left.weight.square() + below[:, 6:] @ model.right.weight.square()
    assert found.popitem()[1][own] == pytest.approx((0.5 * a.square() * h).mean(0).detach().numpy())


def test_curvatures_pass_maximum_and_average_pools_as_their_jacobians_say() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1), nn.Tanh(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    model = randomize_(model).double().eval()
    x, labels = batch(2, 4, 4)
    network = read(model, 2, 4, 4)
    found = scores(network, ["activation-before/hessian-approx1/none/none"], [(x, labels)])
    made = model[0](x).detach()
    expected = torch.zeros(4, dtype=torch.float64)
    for image in made:
        # Layer by layer, with whole Jacobians, squared.
        value, squares = image, []
        for layer in model[1:]:
            jacobian = torch.autograd.functional.jacobian(lambda v, f=layer: f(v[None])[0], value)
            squares.append(jacobian.reshape(-1, value.numel()).square())
            value = layer(value[None])[0].detach()
        p = value.softmax(-1)
        h = p * (1 - p)
        for square in reversed(squares):
            h = h @ square
        expected += 0.5 * (image.square().flatten() * h).reshape(4, -1).sum(1) / IMAGES
    own = network.coupling.groups[0].atoms
    assert found.popitem()[1][own] == pytest.approx(expected.numpy(), rel=1e-8)


def test_curvatures_through_operators_without_a_rule_are_right_on_average() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    model = randomize_(model).double().eval()
    network = read(model, 4)
    x, labels = batch(4)
    many = [(x.repeat(400, 1), labels.repeat(400))]
    found = scores(network, ["activation-before/hessian-approx1/none/none"], many).popitem()[1]
    expected = torch.zeros(6, dtype=torch.float64)
    for image in model[0](x).detach():
        inner = torch.autograd.functional.jacobian(model[1], image)
        p = model[2](model[1](image)).softmax(0)
        h = ((p * (1 - p)) @ model[2].weight.square()) @ inner.square()
        expected += 0.5 * image.square() * h.detach() / IMAGES
    assert found == pytest.approx(expected.numpy(), rel=0.1)


# --- places where channels are read without a weight ---------------------------------------------


class Attention(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Linear(3, 8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.kind == "kernel":
            return functional.scaled_dot_product_attention(q, k, v)
        if self.kind == "einsum":
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k)
        else:
            scores = q @ k.transpose(-2, -1)
        return (scores / 2).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = self.attend(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.out(x).relu().mean(1))


@pytest.mark.parametrize("kind", ["kernel", "matmul", "einsum"])
def test_activation_signals_see_queries_and_keys(kind: str) -> None:
    model = randomize_(Attention(kind)).eval()
    network = read(model, 5, 3)
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(IMAGES, 5, 3, generator=generator), torch.arange(IMAGES) % 3
    names = ["activation/value/l2/none", "activation/taylor/abs-sum/none", "fisher",
             "activation/taylor2-approx1/l1/none", "activation-before/taylor/abs-sum/none",
             "weight/taylor/l1/none"]  # fmt: skip
    found = scores(network, names, [(x, labels)])
    for name, values in found.items():
        assert np.isfinite(values).all(), name
    (width,) = [group for group in network.coupling.groups if group.contracted]
    with torch.no_grad():
        rows = [f(model.embed(x)).reshape(IMAGES, 5, 2, 4) for f in (model.q, model.k)]
    expected = sum(row.square().sum((1, 2)).mean(0) for row in rows)
    assert found[names[0]][width.atoms] == pytest.approx(expected.numpy(), rel=1e-4)


def test_every_group_of_a_network_is_tapped() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
            self.gate = nn.Conv2d(2, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            # Nothing sums over the channels of the gate with a weight.
            gate = self.gate(x).square().sum(1, keepdim=True).mean((2, 3))
            return self.head(self.stem(x).relu().mean((2, 3)) * gate)

    network = read(randomize_(Aside()), 2, 5, 5)
    tapped = np.unique(np.concatenate([tap.atoms.reshape(-1) for tap in
                                       read_taps(network.trace, network.coupling)]))  # fmt: skip
    assert set(range(network.coupling.atom_count)) <= set(tapped.tolist())
    x, labels = batch(2, 5, 5)
    found = scores(network, ["activation/value/l1/none"], [(x.float(), labels)])
    assert np.isfinite(found.popitem()[1]).all()


def test_images_that_are_split_into_windows_stay_one_image_each() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            windows = self.stem(x).reshape(-1, 2, 4)  # [images * 3, 2, 4]
            return self.head(self.inner(windows).relu().reshape(-1, 6, 5).mean(1))

    model = randomize_(Windows()).double().eval()
    network = read(model, 6, 3)
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(IMAGES, 6, 3, generator=generator).double(), torch.arange(IMAGES) % 3
    names = ["activation/value/sqr-sum/none", "weight/gradient/sqr-sum/none"]
    found = scores(network, names, [(x, labels)])
    own = network.coupling.groups[0].atoms
    with torch.no_grad():
        expected = model.stem(x).sum(1).square().mean(0)
    assert found[names[0]][own] == pytest.approx(expected.numpy())
    total = torch.zeros(5, dtype=torch.float64)
    for image, label in zip(x, labels, strict=True):
        loss = functional.cross_entropy(model(image[None]), label[None])
        w, b = torch.autograd.grad(loss, [model.inner.weight, model.inner.bias])
        total += (w.sum(1) + b).square() / IMAGES
    inner = network.coupling.groups[1].atoms
    assert found[names[1]][inner] == pytest.approx(total.numpy())


# --- presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"), [((1, -2, 3), (1 / 14, 4 / 13, 1)), ((0.1, 0.2), (0.2, 1))]
)
def test_lamp_has_the_known_answers(values: tuple[float, ...], expected: tuple[float, ...]) -> None:
    model = nn.Sequential(nn.Linear(1, len(values), bias=False), nn.Linear(len(values), 3))
    model[0].weight.data = torch.tensor(values).float()[:, None]
    found = scores(read(model, 1), ["lamp"])["lamp"]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_presets_with_a_cost_term_subtract_the_flops_that_go() -> None:
    network, given = read(plain(), 2, 6, 6), [batch(2, 6, 6)]
    names = ["taylor", "taylor-flops", "fisher", "fisher-flops", "fisher-per-flop"]
    found = scores(network, names, given)
    # Its own filter at 9 positions, a factor and a shift at each, and its column of the head.
    flops = 9 * 2 * 9 + 9 * 2 + 3
    assert network.flops_removed() == pytest.approx(flops)
    assert found["taylor-flops"] == pytest.approx(found["taylor"] - 1e-3 * flops / 1e6)
    assert found["fisher-flops"] == pytest.approx(found["fisher"] / 2 - 1e-3 * flops / 1e6)
    assert found["fisher-per-flop"] == pytest.approx(found["fisher"] / flops)


@pytest.mark.parametrize(("price", "first"), [(0.0, 1), (0.005, 1), (0.02, 2)])
def test_the_price_of_flops_decides_which_channel_goes_first(price: float, first: int) -> None:
    loss, cost = torch.tensor([0.02, 0.01, 0.05]), torch.tensor([1.0, 0.2, 4.0])
    assert int(with_cost(loss, cost, price=price).argmin()) == first
    ratio = SCALINGS.get("flops-removed")(loss, ScalingFacts(*[cost] * 6))
    assert ratio.tolist() == pytest.approx([0.02, 0.05, 0.0125])


def test_what_goes_with_a_channel_has_the_known_answers() -> None:
    model = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 16, 10))
    assert read(randomize_(model), 4, 4, 4).weights_removed().tolist() == [197.0] * 3
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(64, 128, 3, padding=1),
        nn.Flatten(), nn.Linear(128 * 256, 2),
    )  # fmt: skip
    first = read(model, 3, 32, 32).flops_removed()[0]
    # The paper counts two FLOPs for a multiply-add, and one for the shift of each position.
    assert 2 * first + 32 * 32 == 646_144


def test_saliencies_of_single_weights_have_the_known_answers() -> None:
    # L = (3 w1^2 + 2 w1 w2 + w2^2) / 2 at (1, 2), two channels of one weight each.
    w, h = torch.tensor([1.0, 2.0]), torch.tensor([[3.0, 1], [1, 1]])
    found = Scalars(*(part.reshape(1, 2, 1) for part in (w, h @ w, h.diag())))
    assert (h @ w).tolist() == [5, 3]
    assert METRICS.get("taylor").function(found).flatten().tolist() == [-5, -6]
    assert METRICS.get("hessian-approx1").function(found).flatten().tolist() == [1.5, 2]
    assert METRICS.get("taylor2-approx1").function(found).flatten().tolist() == [-3.5, -4]


@pytest.mark.parametrize("name", [entry.name for entry in prunecli.signals.PRESETS])
def test_every_preset_gives_every_channel_a_number(name: str) -> None:
    network = read(plain(), 2, 6, 6)
    found = scores(network, [name], [batch(2, 6, 6)])[name]
    assert np.isfinite(found).all()
    assert np.unique(found).size > 1


def test_weights_that_are_vectors_are_scored() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(5)), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x[:, :1] @ self.weight[None]).relu())

    network = read(randomize_(Scaled()), 4)
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(IMAGES, 4, generator=generator), torch.arange(IMAGES) % 3
    names = ["l1", "weight/taylor/l1/none", "weight/hessian-approx1/l1/none", "fisher"]
    for name, values in scores(network, names, [(x, labels)]).items():
        assert network.coupling.atom_count
        assert np.isfinite(values).all(), name


def test_derivatives_of_large_weights_are_taken_a_few_images_at_a_time(monkeypatch) -> None:
    network, given = read(plain(), 2, 6, 6), [batch(2, 6, 6)]
    names = [f"weight/{metric}/{reduction}/l2" for metric in ("taylor2-approx1", "gradient")
             for reduction in ("l1", "sqr-sum")]  # fmt: skip
    whole = scores(network, names, given)
    monkeypatch.setattr("prunecli.signals.derive.HELD", 150)  # two images of the convolution
    for name, values in scores(network, names, given).items():
        assert values == pytest.approx(whole[name], rel=1e-10)


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    network = read(plain(), 2, 6, 6)
    alive = []

    def batches():
        for seed in range(6):
            yield batch(2, 6, 6, seed=seed)
            alive.append(sum(issubclass(type(item), Tensor) for item in gc.get_objects()))

    gc.collect()
    gc.disable()  # what only the collector of cycles would free counts as kept
    try:
        score_many(
            [str(signal) for signal in distinct_grid()][::7],
            network.trace, network.coupling, network.tensors,
            weights_removed=network.weights_removed(), batches=batches,
        )  # fmt: skip
    finally:
        gc.enable()
    assert alive[1] >= alive[-1] > 0
