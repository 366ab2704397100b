"""The residual networks for small images of He et al. 2015, with parameter-free shortcuts.

Shapes and names are those of the widely shared CIFAR-10 checkpoints (`conv1 bn1
layer{1,2,3}.N.{conv1,bn1,conv2,bn2} linear`). Where the width grows, the shortcut is a strided
slice padded with zero channels on both sides: "option A" of section 4.2 of the paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812  # the name that every torch user expects
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Takes every `stride`-th pixel and adds zero channels, half of them on each side."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, inputs, h, w]` to `[n, outputs, h / stride, w / stride]`."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else PaddedShortcut(inputs, outputs, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, inputs, h, w]` to `[n, outputs, h / stride, w / stride]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of `BasicBlock`s, the second and third at half the resolution each."""

    def __init__(
        self,
        blocks: Sequence[int],
        *,
        widths: Sequence[int] = WIDTHS,
        channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = _stage(first, first, blocks=blocks[0], stride=1)
        self.layer2 = _stage(first, second, blocks=blocks[1], stride=2)
        self.layer3 = _stage(second, third, blocks=blocks[2], stride=2)
        self.linear = nn.Linear(third, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, channels, h, w]` to logits `[n, num_classes]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: Tensor = self.linear(x)
        return logits


def cifar_resnet(*, depth: int, num_classes: int = 10) -> CifarResNet:
    """Return the network of `depth` = 6n + 2 layers (20, 32, 44, 56, 110, 1202)."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth must be 6n + 2, not {depth}")
    return CifarResNet((blocks, blocks, blocks), num_classes=num_classes)


def _stage(inputs: int, outputs: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride=stride)
    rest = [BasicBlock(outputs, outputs, stride=1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
