"""Residual blocks: which branches count as one, and what is left of a graph without them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.ops import StochasticDepth

from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.cost.flops import count_flops
from prunecli.cutting.surgery import slices_of
from prunecli.errors import ProofError
from prunecli.graph.blocks import find_blocks
from prunecli.graph.tracing.trace import trace
from prunecli.network.traced import read_network
from prunecli.proof.prove import prove
from tests.support.weights import randomize_


def conv(inputs: int, outputs: int, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **kwargs)


class Branch(nn.Module):
    """A stem, one branch that a subclass joins to the stream, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.first, self.norm, self.second = conv(8, 12), nn.BatchNorm2d(12), conv(12, 8)
        self.head = nn.Linear(8, 5)

    def branch(self, x):
        return self.second(self.norm(self.first(x)).relu())

    def join(self, x):
        return x + self.branch(x)

    def forward(self, x):
        return self.head(self.join(self.stem(x)).relu().mean((2, 3)))


class InPlace(Branch):
    """Adds in place to the branch; what follows writes in place as well."""

    def join(self, x):
        y = self.branch(x)
        y += x
        return functional.relu_(y)


class StreamInPlace(Branch):
    """Adds in place to the stream itself."""

    def join(self, x):
        return x.add_(self.branch(x))


class ReadLater(Branch):
    """Writes in place into the sum, and reads the stream again after that."""

    def join(self, x):
        y = functional.relu_(x + self.branch(x))
        return torch.tanh(x) * y


class Dropped(Branch):
    """Drops paths, and scales them, as deep residual networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = StochasticDepth(0.5, "row")
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def join(self, x):
        return self.drop(self.scale * self.branch(x)) + x


class ReadOutside(Branch):
    """The inside of the branch feeds something else too."""

    def join(self, x):
        inner = self.norm(self.first(x)).relu()
        return (x + self.second(inner)) * inner.mean((1, 2, 3), keepdim=True)


class WithoutAffine(Branch):
    """Ends in a norm that no weight can silence."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.BatchNorm2d(8, affine=False)

    def branch(self, x):
        return self.last(super().branch(x))


class Shared(Branch):
    """The last layer of the branch is also used before it."""

    def __init__(self) -> None:
        super().__init__()
        self.second = conv(8, 8)

    def join(self, x):
        x = self.second(x)
        return x + self.second(x.relu())


class TwoPaths(Branch):
    """Adds two branches with as many layers: neither is the shortcut of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.other = conv(8, 8)

    def join(self, x):
        return self.second(functional.pad(x, (0, 0, 0, 0, 2, 2))) + self.other(x)


class ActivatedStream(Branch):
    """The branch starts with an activation in place: the stream goes on activated."""

    def join(self, x):
        return x + self.second(self.first(functional.relu_(x)))


IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def built(kind: type[nn.Module]) -> nn.Module:
    return randomize_(kind(), seed=2).eval()


@pytest.mark.parametrize(
    ("kind", "zeroed"),
    [
        (Branch, ("second.weight", "second.bias")),
        (InPlace, ("second.weight", "second.bias")),
        (StreamInPlace, ("second.weight", "second.bias")),
        (ReadLater, ("second.weight", "second.bias")),
        (Dropped, ("scale",)),
        (ActivatedStream, ("second.weight", "second.bias")),
    ],
)
def test_a_network_without_its_block_is_the_one_with_the_last_weights_zeroed(
    kind: type[nn.Module], zeroed: tuple[str, ...]
) -> None:
    model = built(kind)
    network = read_network(model, [IMAGE])
    (block,) = network.blocks
    assert block.zeroed == zeroed
    left = network.without([block])
    slim, _ = left.graph_network(all_kept(left))
    silenced = copy.deepcopy(model)
    for name in zeroed:
        nn.init.zeros_(silenced.get_parameter(name))
    with torch.no_grad():
        torch.testing.assert_close(slim(IMAGE), silenced(IMAGE.clone()), rtol=0, atol=1e-6)
        assert not torch.allclose(slim(IMAGE), model(IMAGE.clone()), atol=1e-3)
    assert not any(name.startswith(("first", "second")) for name in slim.state_dict())


@pytest.mark.parametrize("kind", [ReadOutside, WithoutAffine, Shared, TwoPaths])
def test_a_branch_that_cannot_vanish_alone_is_no_block(kind: type[nn.Module]) -> None:
    assert find_blocks(trace(built(kind), [IMAGE])) == ()


def all_kept(network):
    return torch.ones(network.coupling.atom_count, dtype=torch.bool).numpy()


def vit() -> nn.Module:
    return models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24,
        num_classes=5,
    )  # fmt: skip


def convnext() -> nn.Module:
    config = models.convnext.CNBlockConfig
    return models.convnext.ConvNeXt([config(8, 16, 2), config(16, None, 2)], num_classes=5)


def bottleneck() -> nn.Module:
    return models.ResNet(models.resnet.Bottleneck, [2, 1, 1, 1], num_classes=5, width_per_group=8)


def basic() -> nn.Module:
    return models.ResNet(models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=5)


def mobilenet() -> nn.Module:
    setting = [[1, 8, 1, 1], [4, 8, 2, 1], [4, 16, 3, 2]]
    return models.MobileNetV2(num_classes=5, inverted_residual_setting=setting)


NETWORKS = {
    # Name: how it is made, the side of an image, its blocks, and which of them are deleted here.
    "padded shortcuts": (lambda: cifar_resnet(depth=8), 16, 3, (0, 1)),
    "basic blocks": (basic, 32, 5, (1, 2)),
    "bottlenecks": (bottleneck, 32, 5, (0, 1)),
    "inverted residuals": (mobilenet, 32, 4, (0, 1)),
    "attention and MLP": (vit, 16, 4, (0, 3)),
    "layer scale": (convnext, 32, 4, (0, 3)),
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_blocks_go_with_channels_in_one_proven_cut_of_counted_cost(name: str) -> None:
    make, side, count, chosen = NETWORKS[name]
    model = randomize_(make(), seed=4).eval()
    example = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    network = read_network(model, [example])
    assert len(network.blocks) == count
    assert len({block.name for block in network.blocks}) == count
    left = network.without([network.blocks[at] for at in chosen])
    # Every second channel of the groups that may be cut exactly.
    keep = all_kept(left)
    for group in left.coupling.groups:
        if group.exact and not group.contracted and group.axes == 1:
            keep[group.first + 1 : group.first + group.width : 2] = False
    widths = torch.tensor([int(keep[group.atoms].sum()) for group in left.coupling.groups]).numpy()
    slim, _ = left.graph_network(keep)
    zeroed = [tensor for block in left.deleted for tensor in block.zeroed]
    verified = proof(model, slim, left, keep, zeroed)
    assert verified.max_rel_error < 1e-8
    assert "deleted blocks zeroed" in verified.method
    cost = left.cost.cost(widths)
    assert cost["params"] == sum(value.numel() for value in slim.parameters())
    stored = slim.state_dict().values()
    assert cost["bytes"] == sum(value.numel() * value.element_size() for value in stored)
    if name != "attention and MLP":  # fvcore counts no attention
        assert cost["flops"] == count_flops(slim, (example[:1],))
    assert left.cost.dense == network.cost.dense
    with pytest.raises(ProofError, match="differs"):  # a reference in which one still speaks
        proof(model, slim, left, keep, left.deleted[0].zeroed)


def proof(model, slim, left, keep, zeroed):
    return prove(
        model,
        slim,
        slices_of(left.coupling, keep),
        keep,
        trace=left.trace,
        coupling=left.coupling,
        zeroed=frozenset(zeroed),
    )


def test_a_shortcut_with_weights_stays_and_carries_on() -> None:
    network = read_network(randomize_(basic(), seed=1).eval(), [torch.zeros(2, 3, 32, 32)])
    by_name = {block.name: block for block in network.blocks}
    assert not any("downsample" in name for block in network.blocks for name in block.tensors)
    left = network.without([by_name["layer2.0"]])
    assert "layer2.0.downsample.0.weight" in left.tensors
    assert "layer2.0.conv1.weight" not in left.tensors


def test_blocks_inside_of_others_go_with_them() -> None:
    class Nested(Branch):
        def __init__(self) -> None:
            super().__init__()
            self.inner = conv(12, 12)

        def branch(self, x):
            x = self.norm(self.first(x)).relu()
            return self.second(x + self.inner(x))

    network = read_network(built(Nested), [IMAGE])
    inner, outer = network.blocks
    assert inner.zeroed == ("inner.weight", "inner.bias")
    both = network.without([inner, outer])
    assert both.deleted == (outer,)
    assert "inner.weight" not in both.tensors
    assert "first.weight" in network.without([inner]).tensors


def test_windowed_attention_with_a_mask_written_into_slices_is_a_block() -> None:
    model = models.SwinTransformer([4, 4], 16, [2], [2], [4, 4], num_classes=5)
    network = read_network(randomize_(model, seed=3).eval(), [torch.zeros(2, 3, 32, 32)])
    assert len(network.blocks) == 4
