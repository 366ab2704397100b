"""Networks whose forward hides, under one condition, a place where channel numbers are fixed.

Every one of them is a small classifier; `fixed` treats the first 16 of 32 channels in another way
than the rest, by numbers that a cut of the module does not change. A module whose forward takes
that path is wrong after a cut.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Plain(nn.Module):
    """Two convolutions with batch norm, a mean over the image, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 32, 3, 2, 1),
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(32)])
        self.head, self.other = nn.Linear(32, 10), nn.Linear(32, 10)
        for norm in self.norms:
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)
            nn.init.normal_(norm.running_mean, 0, 0.2)

    def features(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.norms[0](self.first(x)))
        return functional.relu(self.norms[1](self.second(hidden)))

    @staticmethod
    def fixed(hidden: Tensor) -> Tensor:
        return torch.cat([hidden[:, :16] * 3.0, hidden[:, 16:] * 0.5], 1)

    def classes(self, hidden: Tensor) -> Tensor:
        return self.head(hidden.mean((2, 3)))

    def forward(self, x: Tensor) -> Any:
        hidden = self.features(x)
        return self.classes(self.fixed(hidden) if self.hidden_path(x) else hidden)

    def hidden_path(self, _: Tensor) -> bool:
        return False


class Always(Plain):
    def hidden_path(self, _: Tensor) -> bool:
        return True


class OneImage(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return x.shape[0] == 1


class OneImageTwice(Plain):
    """One image is treated differently, and a cut of the module is right there too."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.classes(hidden * 2 - 1 if x.shape[0] == 1 else hidden)


class ManyImages(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return x.shape[0] >= 8


class LargeImages(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return x.shape[-1] >= 128


class WideImages(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return x.shape[-1] > x.shape[-2]


class OddImages(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return x.shape[-1] % 2 == 1


class SinglePrecision(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return x.dtype != torch.float64


class DoublePrecision(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return x.dtype == torch.float64


class WithGradients(Plain):
    def hidden_path(self, _: Tensor) -> bool:
        return torch.is_grad_enabled()


class OnThreads(Plain):
    def hidden_path(self, _: Tensor) -> bool:
        return torch.get_num_threads() > 1


class OnThreadsInSingle(OnThreads):
    """It does not run in double precision, which must not hide what it does on threads."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x.float())


class SecondCall(Plain):
    calls = 0

    def hidden_path(self, _: Tensor) -> bool:
        self.calls += 1
        return self.calls > 1


class NotExported(Plain):
    """It asks as libraries do, and is told that nobody exports it."""

    def hidden_path(self, _: Tensor) -> bool:
        return not torch.compiler.is_exporting()


class NotTraced(Plain):
    """It notices the trace in a way of its own."""

    def hidden_path(self, _: Tensor) -> bool:
        return not torch.compiler._is_exporting_flag


class ByValue(Plain):
    def hidden_path(self, x: Tensor) -> bool:
        return float(x.abs().mean()) < 0.5


class ByLargeValue(Plain):
    """Values that no random input has: samples cannot show it."""

    def hidden_path(self, x: Tensor) -> bool:
        return float(x.abs().mean()) > 1e4


class ByValueInGraph(Plain):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.classes(torch.where(x.abs().mean() < 0.5, self.fixed(hidden), hidden))


class ForLargeValues(Plain):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.classes(hidden + self.fixed((hidden - 30).clamp(min=0)))


class BesideLargeOutput(Plain):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        small = self.other(self.fixed(hidden).mean((2, 3)))
        return torch.cat([self.classes(hidden) * 1e11, small], 1)


class SilentOutput(Plain):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.features(x)
        return self.classes(hidden), (self.other(self.fixed(hidden).mean((2, 3))) - 20).relu()


class ClassNumber(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.fixed(self.features(x))).argmax(1)


class Rounded(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return (self.classes(self.fixed(self.features(x))) * 0.5).round()


class CountsCalls(Plain):
    """A counter in a buffer decides: the graph has to move it as the module does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        hidden = self.features(x)
        return self.classes(torch.where(self.count > 3, self.fixed(hidden), hidden))


class MovingMean(Plain):
    """A statistic that moves in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        self.mean.mul_(0.9).add_(0.1 * hidden.mean((0, 2, 3)))
        return self.classes(hidden - self.mean[None, :, None, None])


class Width(Plain):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.classes(hidden) * (hidden.shape[1] / 32)


class OwnTable(Plain):
    """A table of numbers that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.linspace(0.1, 3, 32)[None, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.features(x) * self.table.to(x))


class UnwritableSizes(Plain):
    """Sizes that no program knows the arithmetic of, beside fixed channel numbers."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fixed(self.features(x))
        size = (math.ceil(x.shape[-2] / 3), math.ceil(x.shape[-1] / 3))
        return self.classes(functional.interpolate(hidden, size))


class FollowsType(Plain):
    """A trace says float32 where the forward says the type of a weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.features(x).to(self.head.weight.dtype))


class HalfPrecision(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.half()

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.features(x.half()))


class SeededNoise(Plain):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        generator = torch.Generator().manual_seed(0)
        return self.classes(hidden + torch.randn(hidden.shape[1:], generator=generator))
