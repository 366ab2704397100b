"""Random networks, drawn step by step from a table of kinds of layers and a list of heads."""

# ruff: noqa: ARG005 - the functions of a table have one signature

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.weights import randomize_

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 6
"""Height and width of the images that the networks read."""

CLASSES = 3

Step = tuple[str, int]
"""A kind of layer, and a number that decides its width and which earlier value it meets."""


@dataclass(frozen=True)
class Kind:
    """One kind of step.

    `make(width, other, number)` returns the layer and the width that leaves the step; `run(layer,
    x, other)` runs it, where `other` is an earlier value of the same height and width.
    """

    make: Callable[[int, int, int], tuple[nn.Module, int]]
    run: Callable[[nn.Module, Tensor, Tensor], Tensor] = lambda layer, x, _: layer(x)
    keeps_side: bool = True


def conv(inputs: int, outputs: int, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **kwargs)


def _wider(number: int) -> int:
    return 2 + 2 * (number % 4)


def _convolution(width: int, _: int, number: int) -> tuple[nn.Module, int]:
    return conv(width, _wider(number)), _wider(number)


def _same(make: Callable[[int], nn.Module]) -> Callable[[int, int, int], tuple[nn.Module, int]]:
    return lambda width, other, number: (make(width), width)


def _nothing(more: int = 0) -> Callable[[int, int, int], tuple[nn.Module, int]]:
    return lambda width, other, number: (nn.Identity(), width + more)


def _shuffle(_: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def _swap(_: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second.relu(), first], 1)


def _gate(width: int, _: int, number: int) -> tuple[nn.Module, int]:
    inside = _wider(number)
    squeeze, excite = nn.Conv2d(width, inside, 1), nn.Conv2d(inside, width, 1)
    return nn.Sequential(squeeze, nn.ReLU(), excite, nn.Sigmoid()), width


def _down(width: int, _: int, number: int) -> tuple[nn.Module, int]:
    return conv(width, width + 4, stride=2), width + 4


def _run_down(layer: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    return layer(x) + functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))


def _transposed(width: int, _: int, number: int) -> tuple[nn.Module, int]:
    groups = 1 + number % 2
    layer = nn.ConvTranspose2d(width, _wider(number), 3, padding=1, groups=groups)
    return layer, _wider(number)


def _tokens(width: int, _: int, number: int) -> tuple[nn.Module, int]:
    inside = 2 * _wider(number)
    return nn.Sequential(nn.Linear(width, inside), nn.GELU(), nn.Linear(inside, width)), width


def _run_tokens(layer: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x + layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, c, h, w)


class Attention(nn.Module):
    """Attention of one head between positions; its temperature is fixed."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, inside), nn.Linear(width, inside)
        self.value, self.out = nn.Linear(width, inside), nn.Linear(inside, width)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.query(x) @ self.key(x).transpose(1, 2) * 0.5).softmax(-1)
        return self.out(weights @ self.value(x))


class Heads(nn.Module):
    """Attention of several heads: fused, in einsums, or in torch's kernel."""

    def __init__(self, width: int, inside: int, number: int) -> None:
        super().__init__()
        self.heads, self.number = 2 + number % 2, number
        self.qkv = nn.Linear(width, 3 * self.heads * inside)
        self.out = nn.Linear(self.heads * inside, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        if self.number % 3 == 0:
            q, k, v = qkv.unbind(2)
            weights = torch.einsum("nqhd,nkhd->nhqk", q, k).mul(0.5).softmax(-1)
            return self.out(torch.einsum("nhqk,nkhd->nqhd", weights, v).flatten(2))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.number % 3 == 1:
            mixed = ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


def _unbind(_: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    n, c, h, w = x.shape
    first, second = x.view(n, 2, c // 2, h, w).unbind(1)
    return torch.cat([first * second, second], 1)


def _run_layer_norm(layer: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class HandNorm(nn.Module):
    """A root-mean-square norm over channels, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.square().mean(1, keepdim=True) + 1e-3).rsqrt()


def _pick(_: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    order = [(3 * at + 1) % x.shape[1] for at in range(x.shape[1])]
    return x[:, order]


def _rows(layer: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    # Rows are looked up by what the network computes; channels pass.
    picked = x.mean(1).argmax(1, keepdim=True).unsqueeze(1).expand_as(x[:, :, :1])
    return x + x.gather(2, picked)


def _pixels(width: int, _: int, number: int) -> tuple[nn.Module, int]:
    outputs = 2 + 2 * (number % 2)
    return nn.Sequential(conv(width, 4 * outputs), nn.PixelShuffle(2)), outputs


def _patches(layer: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    n, _, h, w = x.shape
    columns = functional.unfold(x, 3, padding=1)
    return layer(columns.transpose(1, 2)).transpose(1, 2).reshape(n, -1, h, w)


def _in_place(_: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    shifted = torch.zeros_like(x)
    shifted[:, :2, 1:] = x[:, :2, :-1]
    shifted[:, 2:] = x[:, 2:]
    return shifted


class Scale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mul = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mul


KINDS: dict[str, Kind] = {
    "conv": Kind(_convolution),
    "norm": Kind(_same(nn.BatchNorm2d)),
    "grouped": Kind(_same(lambda width: conv(width, width, groups=2))),
    "depthwise": Kind(_same(lambda width: conv(width, width, groups=width))),
    "multiplied": Kind(
        lambda width, other, number: (conv(width, 2 * width, groups=width), 2 * width)
    ),
    "add": Kind(
        lambda width, other, number: (conv(width, other), other),
        lambda layer, x, other: layer(x) + other,
    ),
    "cat": Kind(
        lambda width, other, number: (conv(width, _wider(number)), _wider(number) + other),
        lambda layer, x, other: torch.cat([layer(x), other], 1),
    ),
    "pad": Kind(_nothing(2), lambda layer, x, other: functional.pad(x, (0, 0, 0, 0, 1, 1))),
    "ones": Kind(
        _nothing(2), lambda layer, x, other: functional.pad(x, (0, 0, 0, 0, 0, 2), value=1.0)
    ),
    "shuffle": Kind(_nothing(), _shuffle),
    "split": Kind(_nothing(), _swap),
    "slice": Kind(
        lambda width, other, number: (nn.Identity(), width - 2 if width > 2 else width),
        lambda layer, x, other: x[:, 2:] if x.shape[1] > 2 else x,
    ),
    "gate": Kind(_gate, lambda layer, x, other: x * layer(x.mean((2, 3), keepdim=True))),
    "mask": Kind(
        lambda width, other, number: (conv(width, 1), width),
        lambda layer, x, other: x * layer(x).sigmoid(),
    ),
    "scale": Kind(_same(Scale)),
    "prelu": Kind(lambda width, other, number: (nn.PReLU(width if number % 2 else 1), width)),
    "layer-norm": Kind(_same(nn.LayerNorm), _run_layer_norm),
    "group-norm": Kind(
        lambda width, other, number: (nn.GroupNorm((1, 2, width)[number % 3], width), width)
    ),
    "tokens": Kind(_tokens, _run_tokens),
    "attention": Kind(
        lambda width, other, number: (Attention(width, 2 * _wider(number)), width), _run_tokens
    ),
    "heads": Kind(
        lambda width, other, number: (Heads(width, _wider(number), number), width), _run_tokens
    ),
    "hand-norm": Kind(_same(HandNorm)),
    "glu": Kind(
        lambda width, other, number: (
            nn.Sequential(conv(width, 2 * _wider(number)), nn.GLU(1)), _wider(number)
        )
    ),
    "pick": Kind(_nothing(), _pick),
    "roll": Kind(_nothing(), lambda layer, x, _: x.roll(1, 1).flip(1)),
    "rows": Kind(_nothing(), _rows),
    "windows": Kind(
        lambda width, other, number: (nn.Linear(9 * width, _wider(number)), _wider(number)),
        _patches,
    ),
    "repeat": Kind(
        lambda width, other, number: (conv(2 * width, _wider(number)), _wider(number)),
        lambda layer, x, _: layer(x.repeat(1, 2, 1, 1)),
    ),
    "in-place": Kind(_nothing(), _in_place),
    "spectrum": Kind(
        _nothing(), lambda layer, x, _: torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=x.shape[2:])
    ),
    "instance-norm": Kind(_same(lambda width: nn.InstanceNorm2d(width, affine=True))),
    "unbind": Kind(_nothing(), _unbind),
    "transposed": Kind(_transposed),
    "twice": Kind(
        _same(lambda width: conv(width, width)), lambda layer, x, _: layer(layer(x).relu())
    ),
    "pool": Kind(_nothing(), lambda layer, x, _: functional.avg_pool2d(x, 3, 1, 1)),
    "pixels": Kind(_pixels, keeps_side=False),
    "unpixels": Kind(
        lambda width, other, number: (nn.PixelUnshuffle(2), 4 * width),
        lambda layer, x, _: layer(x) if x.shape[2] % 2 == 0 else x.repeat(1, 4, 1, 1),
        keeps_side=False,
    ),
    "down": Kind(_down, _run_down, keeps_side=False),
    "up": Kind(
        lambda width, other, number: (
            nn.ConvTranspose2d(width, _wider(number), 2, 2), _wider(number)
        ),
        keeps_side=False,
    ),
    "resize": Kind(
        _nothing(), lambda layer, x, _: functional.interpolate(x, scale_factor=2.0),
        keeps_side=False,
    ),
}  # fmt: skip

HEADS = ("mean", "flatten", "baked", "two-pools", "two-outputs")


class RandomNetwork(nn.Module):
    """A network drawn step by step, with one of several heads."""

    def __init__(self, steps: list[Step], head: str = "mean") -> None:
        super().__init__()
        self.steps, self.kind = steps, head
        self.layers = nn.ModuleList()
        self.stem = conv(3, 4)
        width, widths = 4, [4]
        for name, number in steps:
            kind = KINDS[name]
            layer, width = kind.make(width, widths[number % len(widths)], number)
            self.layers.append(layer)
            widths = [*widths, width] if kind.keeps_side else [width]
        self.features = width
        size = self._final(torch.zeros(1, 3, SIDE, SIDE))[0].numel()
        inputs = {"flatten": size, "baked": size, "two-pools": 2 * width}.get(head, width)
        if head in {"flatten", "baked"}:
            self.hidden = nn.Linear(inputs, 8)
            inputs = 8
        self.fc = nn.Linear(inputs, CLASSES)
        if head == "two-outputs":
            self.other = nn.Linear(4, CLASSES)

    def _final(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        seen = [x]
        for (name, number), layer in zip(self.steps, self.layers, strict=True):
            kind = KINDS[name]
            x = kind.run(layer, x, seen[number % len(seen)])
            seen = [*seen, x] if kind.keeps_side else [x]
        return x.relu()

    def forward(self, x: Tensor):
        features = self._final(x)
        if self.kind == "flatten":
            return self.fc(self.hidden(features.flatten(1)).relu())
        if self.kind == "baked":
            return self.fc(self.hidden(features.reshape(-1, self.hidden.in_features)).relu())
        if self.kind == "two-pools":
            pools = features.mean((2, 3)), features.amax((2, 3))
            return self.fc(torch.cat(pools, 1))
        logits = self.fc(features.mean((2, 3)))
        if self.kind == "two-outputs":
            return logits, self.other(self.stem(x).mean((2, 3)))
        return logits


def network(steps: list[Step], *, head: str = "mean", seed: int = 0) -> nn.Module:
    """Return a random network in evaluation mode, with weights that hide nothing."""
    torch.manual_seed(seed)
    return randomize_(RandomNetwork(steps, head), seed=seed).eval()


def fvcore_counts_all(steps: list[Step]) -> bool:
    """Tell whether fvcore counts these steps exactly.

    It rounds einsums to a few digits and counts nothing in torch's attention kernel.
    """
    return not any(name == "heads" and number % 3 != 1 for name, number in steps)


def draw(seed: int) -> tuple[list[Step], str]:
    """Return the steps and the head of the network with this seed."""
    random = np.random.default_rng(seed)
    names = list(KINDS)
    steps = [
        (names[random.integers(len(names))], int(random.integers(8)))
        for _ in range(random.integers(2, 9))
    ]
    return steps, HEADS[random.integers(len(HEADS))]
