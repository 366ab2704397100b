"""Weights that a forward computes from parameters: folded into plain ones, and then cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.cost.flops import count_flops
from prunecli.errors import ProofError
from prunecli.graph.tracing.folding import fold, stored_tensors
from prunecli.graph.tracing.trace import trace
from prunecli.network.traced import read_network
from prunecli.proof.prove import prove
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = torch.zeros(1, 3, 10, 10)
SPEC = InputSpec(3, 10, 10, (0.5,) * 3, (0.2,) * 3)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated:FutureWarning"),
]


class Standardised(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / (variance + 1e-6).sqrt()
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class Gained(nn.Conv2d):
    """A standardised convolution with a gain per filter, by way of a batch norm."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))
        self.scale = self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = functional.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None,
            weight=(self.gain * self.scale).view(-1), training=True, momentum=0.0, eps=1e-5,
        ).reshape_as(self.weight)  # fmt: skip
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class Product(nn.Module):
    """A convolution whose weight is the product of two thin matrices."""

    def __init__(self, inputs: int, outputs: int, side: int, padding: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(outputs, 6))
        self.right = nn.Parameter(torch.randn(6, inputs * side * side))
        self.bias, self.shape = nn.Parameter(torch.randn(outputs)), (outputs, inputs, side, side)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.left @ self.right).view(self.shape)
        return functional.conv2d(x, weight, self.bias, padding=self.padding)


def by_weight(layer: nn.Module) -> Tensor:
    return layer.weight.detach()


def standardised(layer: nn.Module) -> Tensor:
    rows = layer.weight.detach().flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    return (rows / (rows.square().mean(1, keepdim=True) + 1e-6).sqrt()).view_as(layer.weight)


def gained(layer: nn.Module) -> Tensor:
    rows = layer.weight.detach().flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / (rows.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return (layer.gain.detach().flatten(1) * rows * layer.scale).view_as(layer.weight)


def product(layer: nn.Module) -> Tensor:
    return (layer.left @ layer.right).detach().view(layer.shape)


@dataclass(frozen=True)
class Kind:
    """How a layer is made, its weight by hand, and the name of the folded tensor in it."""

    make: Callable[..., nn.Module]
    weight: Callable[[nn.Module], Tensor] = by_weight


KINDS = {
    "weight standardisation": Kind(Standardised, standardised),
    "gain": Kind(Gained, gained),
    "weight norm, hook": Kind(lambda *a, **k: nn.utils.weight_norm(nn.Conv2d(*a, **k))),
    "weight norm": Kind(lambda *a, **k: nn.utils.parametrizations.weight_norm(nn.Conv2d(*a, **k))),
    "spectral norm, hook": Kind(lambda *a, **k: nn.utils.spectral_norm(nn.Conv2d(*a, **k))),
    "spectral norm": Kind(
        lambda *a, **k: nn.utils.parametrizations.spectral_norm(nn.Conv2d(*a, **k))
    ),
    "product": Kind(Product, product),
}


class Chain(nn.Module):
    """Two layers of a kind and a plain classifier."""

    def __init__(self, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.stem, self.body = make(3, 12, 3, padding=1), make(12, 16, 3, padding=1)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x).relu()).relu()
        return self.fc(self.drop(x.mean((2, 3))))


def chain(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = Chain(KINDS[kind].make).eval()
    with torch.no_grad():
        model(torch.randn(2, 3, 10, 10))  # a hook computes the weight in the forward
    return model


def cut_by_hand(model: Chain, weight: Callable[[nn.Module], Tensor], keep, x: Tensor) -> Tensor:
    """Run the kept channels alone, over weights computed by hand; in float64."""
    first, second = list(keep["stem"]), list(keep["body"])
    x = functional.conv2d(
        x.double(), weight(model.stem).double()[first], model.stem.bias.double()[first], padding=1
    ).relu()
    x = functional.conv2d(
        x, weight(model.body).double()[second][:, first], model.body.bias.double()[second],
        padding=1,
    ).relu()  # fmt: skip
    columns = model.fc.weight.double()[:, second]
    return functional.linear(x.mean((2, 3)), columns, model.fc.bias.double())


@pytest.mark.parametrize("kind", KINDS)
def test_a_computed_weight_is_folded_cut_proven_saved_trained_and_exported(kind, tmp_path) -> None:
    model = chain(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = prunecli.prune(model, IMAGE, flops=0.5, align=1, signal="l2")
    report = result.report
    assert (report.mode, report.verified.method) == ("graph", "consumer-zero on the traced graph")
    assert any("2 weights are computed from others" in line for line in report.warnings)
    assert {"stem.weight", "body.weight", "fc.weight"} <= set(result.model.state_dict())
    images = torch.randn(4, 3, 10, 10)
    expected = cut_by_hand(model, KINDS[kind].weight, result.plan.keep, images)
    torch.testing.assert_close(result.model(images).double(), expected, rtol=1e-4, atol=1e-5)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} of the caller's model has changed"

    prunecli.save(result, tmp_path / "slim.pt", input=SPEC)
    loaded = prunecli.load(tmp_path / "slim.pt")
    torch.testing.assert_close(loaded(images), result.model(images))
    assert prunecli.export(loaded, tmp_path / "slim.onnx", input=SPEC).max_rel_error < 1e-4

    losses = train(loaded, images)
    assert losses[1] < losses[0]


def train(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Take a few steps that fit the labels of these images; return the loss before and after."""
    labels = torch.arange(len(images))
    before = functional.cross_entropy(model(images), labels).item()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(10):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert all(value.grad is not None for value in model.parameters())
    return before, functional.cross_entropy(model.eval()(images), labels).item()


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_cost_is_that_of_the_users_network_and_the_cut_one_of_the_folded(kind) -> None:
    model = chain(kind)
    result = prunecli.prune(model, IMAGE, flops=0.5, align=1, signal="l2")
    cost = result.report.cost
    assert cost.before.params == sum(value.numel() for value in model.parameters())
    assert cost.after.params == sum(value.numel() for value in result.model.parameters())
    assert cost.after.flops == count_flops(result.model, (IMAGE,))
    stored = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert cost.before.bytes == stored


# --- what is left as it is -----------------------------------------------------------------------


class Scaled(nn.Module):
    """A weight times a scale per channel, and one per input; a weight seen as a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 12, 3), nn.Linear(12, 4)
        self.body, self.point = nn.Conv2d(12, 16, 3), nn.Linear(16, 12)
        self.scale = nn.Parameter(torch.rand(16, 1, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.rand(1, 12, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scale * self.body.weight / self.shift
        x = functional.conv2d(self.stem(x).relu(), weight, self.body.bias).relu()
        x = functional.conv2d(x, self.point.weight[:, :, None, None], self.point.bias).relu()
        return self.fc(x.mean((2, 3)))


class Joined(nn.Module):
    """One linear layer over a joined weight, with a bias of which a part is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Linear(3, 12), nn.Linear(16, 4)
        self.query, self.key = nn.Parameter(torch.randn(8, 12)), nn.Parameter(torch.randn(8, 12))
        self.bias = nn.Parameter(torch.randn(8))
        self.register_buffer("none", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.mean((2, 3))).relu()
        weight, bias = torch.cat([self.query, self.key]), torch.cat([self.bias, self.none])
        return self.fc(functional.linear(x, weight, bias).relu())


class Tokens(nn.Module):
    """A token for every image, and a table of positions read by a stored index."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 12, 5, stride=5), nn.Linear(12, 4)
        self.inside, self.out = nn.Linear(12, 16), nn.Linear(16, 12)
        self.token, self.table = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(5))
        self.register_buffer("index", torch.tensor([[4, 3], [2, 1], [0, 0], [1, 2], [3, 4]]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.out(self.inside(x).relu())
        return self.fc((x * self.table[self.index].sum(1)[:, None]).mean(1))


class Blurred(nn.Module):
    """One stored filter for every channel, and a weight that is one of a bank."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 12, 3), nn.Linear(16, 4)
        self.bank = nn.Parameter(torch.randn(3, 16, 12, 3, 3))
        self.register_buffer("filter", torch.rand(1, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        weight = self.filter.repeat(x.shape[1], 1, 1, 1)
        x = functional.conv2d(x, weight, padding=1, groups=x.shape[1])
        return self.fc(functional.conv2d(x, self.bank[1]).relu().mean((2, 3)))


@pytest.mark.parametrize("make", [Scaled, Joined, Tokens, Blurred])
def test_what_can_be_followed_is_not_folded_and_stays_in_module_mode(make) -> None:
    torch.manual_seed(0)
    model = make().eval()
    assert read_network(model, [IMAGE]).trace.folding is None
    result = prunecli.prune(model, IMAGE, flops=0.5, align=1, signal="l2")
    assert isinstance(result.model, make)
    assert result.report.mode == "module"
    assert set(result.model.state_dict()) == set(model.state_dict())


def test_the_channels_of_a_weight_made_of_parameters_are_cut() -> None:
    torch.manual_seed(0)
    widths = {}
    for make in (Scaled, Joined):
        result = prunecli.prune(make().eval(), IMAGE, sparsity=0.5, align=1, signal="l2")
        widths.update({group.name: group.after for group in result.report.groups})
        assert result.report.verified.max_rel_error < 1e-12
    assert widths["body"] < 16
    assert widths["point"] < 12
    assert widths["query"] < 8
    assert widths["key"] < 8


def test_a_folded_weight_that_is_read_twice_is_one_tensor() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.again = nn.Conv2d(3, 8, 1), Standardised(8, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.again(self.again(self.stem(x)).relu()).mean((2, 3)))

    result = prunecli.prune(randomize_(Twice(), seed=0).eval(), IMAGE, flops=0.6, align=1)
    assert set(result.model.state_dict()) == {
        "stem.weight", "stem.bias", "again.weight", "again.bias", "fc.weight", "fc.bias"
    }  # fmt: skip


def test_a_parameter_that_is_also_read_as_it_is_keeps_its_name() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), Standardised(8, 8, 3, padding=1)
            self.fc = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(x)).relu()
            x = functional.conv2d(x, self.second.weight, padding=1)
            return self.fc(x.mean((2, 3)))

    model = randomize_(Both(), seed=0).eval()
    result = prunecli.prune(model, IMAGE, flops=0.6, align=1)
    names = set(result.model.state_dict())
    assert {"second.weight", "second.weight_folded"} <= names


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_computed_weight_that_follows_the_type_of_the_input_is_folded(precision) -> None:
    class Casting(Standardised):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True).to(x.dtype)
            return functional.conv2d(x, weight.to(x.dtype), self.bias, padding=1)

    torch.manual_seed(0)
    model = Chain(Casting).to(precision).eval()
    result = prunecli.prune(model, IMAGE.to(precision), flops=0.5, align=1, signal="l2")
    assert result.report.verified.method == "consumer-zero on the traced graph"
    assert {value.dtype for value in result.model.parameters()} == {precision}
    assert result.model(IMAGE.to(precision)).dtype == precision


# --- the proof -----------------------------------------------------------------------------------


def test_a_folding_that_is_not_the_network_is_refused() -> None:
    model = chain("weight standardisation")
    network = read_network(model, [IMAGE])
    folding = network.trace.folding
    assert folding is not None
    with torch.no_grad():
        folding.tensors["body.weight"][0, 0, 0, 0] += 0.01
    with pytest.raises(ProofError) as raised:
        prunecli_cut_and_prove(network)
    assert raised.value.code == "TRACE_NOT_EQUAL"


def prunecli_cut_and_prove(network) -> None:
    keep = np.ones(network.coupling.atom_count, np.bool_)
    keep[:3] = False
    slim, _ = network.graph_network(keep)
    from prunecli.cutting.surgery import slices_of

    prove(
        network.model, slim, slices_of(network.coupling, keep), keep,
        trace=network.trace, coupling=network.coupling,
    )  # fmt: skip


def test_a_network_of_plain_weights_has_nothing_to_fold() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    traced = trace(model, [IMAGE])
    assert fold(traced, stored_tensors(model)) is traced
