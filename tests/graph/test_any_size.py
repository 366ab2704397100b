"""Traces with the batch and the image sides free, and what they say a forward asks of its sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.network.traced import read_network


class Attention(nn.Module):
    """Attention over the pixels, with views that name the sides of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 4, 1)
        self.qkv, self.mix = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        batch, _, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        split = self.qkv(tokens).reshape(batch, height * width, 3, 4, 4)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        found = found.transpose(1, 2).reshape(batch, height * width, 16)
        return self.out(self.mix(found).relu().transpose(1, 2).reshape(batch, 16, height, width))


class Asking(nn.Module):
    """A forward that asks something of its sizes."""

    def __init__(self, asks) -> None:
        super().__init__()
        self.layer, self.head, self._asks = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), asks

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x).relu()
        return self.head((hidden * 2 if self._asks(x) else hidden).mean((2, 3)))


def network(model, size=32):
    return read_network(model.eval(), [torch.zeros(2, 3, size, size)])


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (3, 3, 48, 40), (2, 3, 20, 64)])
def test_a_graph_takes_every_size_that_the_forward_takes(shape):
    torch.manual_seed(0)
    model = Attention().eval()
    traced = network(model)
    whole = np.ones(traced.coupling.atom_count, np.bool_)
    graph, _ = traced.graph_network(whole, any_size=True)
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.allclose(graph(x), model(x), atol=1e-6)


def test_a_cut_in_graph_mode_keeps_its_sizes_free_through_a_file(tmp_path):
    torch.manual_seed(0)
    result = prunecli.prune(Attention().eval(), torch.zeros(1, 3, 32, 32), flops=0.6)
    assert result.report.mode == "graph"
    spec = InputSpec(3, 32, 32, (0.0,) * 3, (1.0,) * 3)
    prunecli.save(result, tmp_path / "slim.pt", input=spec)
    loaded = prunecli.load(tmp_path / "slim.pt")
    for shape in ((2, 3, 32, 32), (1, 3, 48, 32)):
        x = torch.randn(shape)
        with torch.no_grad():
            found = loaded(x)
            assert found.shape == (shape[0], 4, shape[2] // 2, shape[3] // 2)
            assert torch.equal(found, result.model(x))


@pytest.mark.parametrize(
    ("asks", "size", "side"),
    [
        (lambda x: x.shape[-1] >= 100, 32, ("width", 3, 99)),
        (lambda x: x.shape[-2] >= 20, 32, ("height", 20, None)),
        (lambda x: x.shape[0] > 6, 32, ("batch", 2, 6)),
    ],
)
def test_bounds_are_those_that_the_forward_asks_for(asks, size, side):
    free = network(Asking(asks), size).any_size.free
    assert side in [(one.name, one.low, one.high) for one in free]


@pytest.mark.parametrize(
    ("asks", "holds", "fails"),
    [
        (lambda x: x.shape[-1] % 7 == 0, {"width": 28}, {"width": 29}),
        (lambda x: x.shape[-1] > x.shape[-2], {"width": 28}, {"width": 29}),
    ],
)
def test_what_else_is_asked_is_a_relation(asks, holds, fails):
    found = network(Asking(asks), 28).any_size
    keys = {side.name: side.places[0] for side in found.free}
    usual = dict.fromkeys(keys.values(), 28)
    held, failed = (
        usual | {keys[name]: size for name, size in sizes.items()} for sizes in (holds, fails)
    )
    # Older torch asks besides whether indices fit 32 bits: those hold for both.
    assert all(asked.holds(held) for asked in found.asked)
    assert len([asked for asked in found.asked if not asked.holds(failed)]) == 1


def test_a_network_that_fixes_its_sides_has_none_free():
    model = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=4)
    found = network(model).any_size
    assert [side.name for side in found.free] == ["batch"]


def test_windows_that_shift_are_given_up_soon():
    model = torchvision.models.swin_t(weights=None)
    assert network(model, 64).any_size is None


def test_an_input_that_is_given_twice_is_two_inputs():
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(self.layer(x - 2 * y).relu().mean((2, 3)))

    image = torch.zeros(2, 3, 8, 8)
    model = Difference().eval()
    traced = read_network(model, [image, image])
    graph, _ = traced.graph_network(np.ones(traced.coupling.atom_count, np.bool_), any_size=True)
    x, y = torch.randn(2, 2, 3, 8, 8).unbind()
    with torch.no_grad():
        assert torch.allclose(graph(x, y), model(x, y), atol=1e-6)
