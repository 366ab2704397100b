"""Small networks that return, and take, more than one batch of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional


class Trunk(nn.Module):
    """Two convolutions, for what is done with them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).relu()


class Pair(Trunk):
    def forward(self, x):
        y = self.features(x)
        return self.head(y), [y.mean((2, 3)), None, {"most": y.amax((2, 3))}]


class Named(Trunk):
    """Its outputs are called as a weight, as the input, and as values in between."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        y = self.head(self.features(x))
        return {
            "relu": y.mean((2, 3)),
            "bias": self.bias + y.amax((2, 3)),
            "x": x,
            "add": y,
            "twice": y,
            "loss": None,
        }


@dataclass
class Detected:
    boxes: Tensor
    labels: Tensor
    found: Tensor
    loss: Any = None
    count: int = 0


class Detector(Trunk):
    """Scores, class numbers and a mask of every place; how many these are is no tensor."""

    def forward(self, x):
        scores = self.head(functional.max_pool2d(self.features(x), 2)).flatten(2).transpose(1, 2)
        return Detected(scores, scores.argmax(-1), scores > 0.05, count=4)


class Suppressing(Trunk):
    """Boxes of one image, as many as do not overlap."""

    def forward(self, x):
        raw = self.head(self.features(x)).flatten(2).transpose(1, 2)
        corner = raw[0, :, :2] * 50
        boxes = torch.cat([corner, corner + raw[0, :, 2:].abs() * 50 + 1], 1)
        kept = torchvision.ops.nms(boxes, raw[0, :, 0], 0.5)
        return {"boxes": boxes[kept], "raw": raw}


class TimeFirst(Trunk):
    """As a text recogniser: [time, batch, classes]."""

    def forward(self, x):
        return self.head(self.features(x)).mean(2).permute(2, 0, 1)


class Reader(nn.Module):
    """Convolutions, a recurrent layer over the columns, and scores [time, batch, classes]."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.read = kind(16, 8, bidirectional=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = self.second(functional.max_pool2d(self.first(x).relu(), 2)).relu()
        return self.head(self.read(y.mean(2).permute(2, 0, 1))[0])


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 8, 3, padding=1)
        self.second = nn.Conv3d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, volume):
        return self.head(self.second(self.first(volume).relu()).relu().mean((2, 3, 4)))


class Signals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 8, 5, padding=2)
        self.second = nn.Conv1d(8, 8, 5, padding=2)
        self.head = nn.Linear(8, 4)

    def forward(self, wave):
        return self.head(self.second(self.first(wave).relu()).relu().mean(2))


class Several(nn.Module):
    """Takes an image, a mask of it, the numbers of words, and a switch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.words = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, image, mask, ids, scale=None, whole=True):
        y = self.second(self.first(image * mask).relu()).relu()
        z = y.mean((2, 3)) + self.words(ids).mean(1)
        z = z if scale is None else z * scale
        found = {"logits": self.head(z), "mask": y.mean(1, keepdim=True) * mask}
        return {**found, "features": z} if whole else found


class FixedSide(nn.Module):
    """Flattens an image of 16 pixels into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8 * 16 * 16, 4)

    def forward(self, x):
        return self.head(self.first(x).relu().flatten(1))


class Deformed(nn.Module):
    """A deformable convolution, which ONNX has since opset 19."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.offset = nn.Conv2d(8, 18, 3, padding=1)
        self.deform = torchvision.ops.DeformConv2d(8, 8, 3, padding=1)

    def forward(self, x):
        y = self.first(x).relu()
        return self.deform(y, self.offset(y)).mean((2, 3))
