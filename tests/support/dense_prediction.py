"""Small networks that return something other than classes, and plain images for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from prunecli.architectures.reference import InputSpec
from tests.support.weights import randomize_

RGB16 = InputSpec(3, 16, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def write_plain_images(folder, count=24, size=16, seed=0):
    """Write images of smooth colours without any label."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for at in range(count):
        coarse = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((size, size)).save(folder / f"{at:03d}.png")
    return folder


def saliency(width=8, seed=0, out=1):
    """Return a small fully convolutional network: an image to `out` maps of its size."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, out, 1),
    )  # fmt: skip


@dataclass
class Found:
    """What a made-up detector returns."""

    boxes: Tensor
    scores: Tensor


class Detector(nn.Module):
    """Returns a record with boxes in pixels and scores; something else while it trains."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        )  # fmt: skip
        self.box, self.score = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 5, 1)

    def forward(self, images: Tensor) -> Found | Tensor:
        """Return boxes [n, places, 4] and scores [n, places, 5]."""
        features = self.backbone(images)
        if self.training:
            return features
        return Found(
            1000 * self.box(features).flatten(2).transpose(1, 2),
            self.score(features).flatten(2).transpose(1, 2).sigmoid(),
        )


def randomised(model: nn.Module, seed: int = 1) -> nn.Module:
    return randomize_(model, seed=seed).eval()
