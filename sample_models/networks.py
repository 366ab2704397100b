"""Small networks for handwritten digits: three for the kinds of coupling, one to show a gain.

Of 8x8 pixels: `digits_resnet` pads its shortcuts with zero channels, `digits_vgg` flattens pixels
into a linear layer, and `digits_mobilenet` has depthwise convolutions and squeeze-excite branches.
`digits_wide_resnet` sees 16x16 pixels and is wide enough that arithmetic takes most of its time.
"""

from __future__ import annotations

from torch import Tensor, nn

from prunecli.architectures.cifar_resnet import CifarResNet


def digits_resnet(*, num_classes: int = 10) -> nn.Module:
    """Return a residual network of 14 layers with 16, 32 and 48 channels."""
    return CifarResNet((2, 2, 2), widths=(16, 32, 48), channels=1, num_classes=num_classes)


def digits_vgg(*, num_classes: int = 10) -> nn.Module:
    """Return a plain network: five convolutions, two poolings, flatten, two linear layers."""
    return DigitsVgg(num_classes=num_classes)


def digits_mobilenet(*, num_classes: int = 10) -> nn.Module:
    """Return a network of inverted residuals with squeeze-excite."""
    return DigitsMobileNet(num_classes=num_classes)


def digits_wide_resnet(*, num_classes: int = 10) -> nn.Module:
    """Return a residual network of 7 layers with 48 to 128 channels."""
    return DigitsWideResNet(num_classes=num_classes)


class DigitsVgg(nn.Module):
    """Convolutions with batch norm, 16 to 64 channels, then a flattened 2x2 map."""

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(1, 16),
            *_convolution(16, 16),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            *_convolution(32, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 64),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 2 * 2, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, 1, 8, 8]` to logits `[n, num_classes]`."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


class SqueezeExcite(nn.Module):
    """Scales every channel by a number between 0 and 1 that is made from all channel means."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, channels, h, w]` to the same shape."""
        scale = self.reduce(nn.functional.adaptive_avg_pool2d(x, 1)).relu()
        scaled: Tensor = x * self.expand(scale).sigmoid()
        return scaled


class InvertedResidual(nn.Module):
    """Expand, filter each channel on its own, squeeze-excite, project; added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, expanded: int, stride: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(
            nn.Conv2d(inputs, expanded, 1, bias=False), nn.BatchNorm2d(expanded), nn.Hardswish()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(expanded, expanded, 3, stride=stride, padding=1, groups=expanded, bias=False),
            nn.BatchNorm2d(expanded),
            nn.Hardswish(),
        )
        self.excite = SqueezeExcite(expanded, expanded // 4)
        self.project = nn.Sequential(
            nn.Conv2d(expanded, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, inputs, h, w]` to `[n, outputs, h / stride, w / stride]`."""
        y: Tensor = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class DigitsMobileNet(nn.Module):
    """A stem of 16 channels, five inverted residuals up to 48, and a head of 128."""

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
        )
        self.blocks = nn.Sequential(
            InvertedResidual(16, 16, expanded=48, stride=1),
            InvertedResidual(16, 32, expanded=64, stride=2),
            InvertedResidual(32, 32, expanded=96, stride=1),
            InvertedResidual(32, 48, expanded=96, stride=2),
            InvertedResidual(48, 48, expanded=128, stride=1),
        )
        self.head = nn.Sequential(
            nn.Conv2d(48, 128, 1, bias=False), nn.BatchNorm2d(128), nn.Hardswish()
        )
        self.classifier = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, 1, 8, 8]` to logits `[n, num_classes]`."""
        x = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut, which is one convolution of 1x1 where shapes change."""

    def __init__(self, inputs: int, outputs: int, *, hidden: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[n, inputs, h, w]` to `[n, outputs, h / stride, w / stride]`."""
        y = self.bn1(self.conv1(x)).relu()
        added: Tensor = self.bn2(self.conv2(y)) + self.shortcut(x)
        return added.relu()


class DigitsWideResNet(nn.Module):
    """A stem of 48 channels and basic blocks of 48 and twice 96, each at half the size before.

    At half the FLOPs every layer keeps 2/3 or 3/4 of its channels, which are multiples of 16 still:
    the steps in which kernels on a CPU work.
    """

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(1, 48))
        self.blocks = nn.Sequential(
            BasicBlock(48, 48, hidden=64, stride=1),
            BasicBlock(48, 96, hidden=128, stride=2),
            BasicBlock(96, 96, hidden=96, stride=2),
        )
        self.classifier = nn.Linear(96, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[n, 1, 16, 16]` to logits `[n, num_classes]`."""
        x = self.blocks(self.stem(x))
        logits: Tensor = self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
