"""A small VGG and a small MobileNet for photographs of few pixels, to train from nothing."""

from __future__ import annotations

from torch import Tensor, nn

VGG_WIDTHS = (16, 32, 64)
MOBILE_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1))
"""Output channels and stride of every separable convolution."""


def small_vgg(*, num_classes: int = 10, side: int = 32) -> nn.Module:
    """Return six convolutions in three pairs with pooling behind each, then two linear layers.

    In kind as in Simonyan, Zisserman 2014, arXiv 1409.1556, with batch norm and fewer channels.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for width in VGG_WIDTHS:
        layers += [*_convolution(inputs, width), *_convolution(width, width), nn.MaxPool2d(2)]
        inputs = width
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(inputs * (side // 8) ** 2, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


def small_mobilenet(*, num_classes: int = 10) -> nn.Module:
    """Return a stem and five depthwise separable convolutions, then the mean over the pixels.

    In kind as in Howard et al. 2017, arXiv 1704.04861, with fewer strides.
    """
    layers: list[nn.Module] = [*_convolution(3, 32, stride=2)]
    inputs = 32
    for width, stride in MOBILE_BLOCKS:
        layers += _convolution(inputs, inputs, stride=stride, groups=inputs)
        layers += _convolution(inputs, width, size=1)
        inputs = width
    return nn.Sequential(*layers, _Mean(), nn.Linear(inputs, num_classes))


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, c, h, w]` to `[n, c]`."""
        return x.mean((2, 3))


def _convolution(
    inputs: int, outputs: int, *, size: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(
            inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
