"""The one small network, and the one protocol, that the expected error and its curves speak of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from prunecli.data import Arrays

SIDE = 32
WIDTHS = (16, 32, 64, 64)
UPDATES = 600
BATCH = 64
PEAK = 0.1
PROTOCOL = {
    "network": (
        "four 3x3 convolutions of 16, 32, 64 and 64 channels, each with batch norm and ReLU, "
        "2x2 max pooling after the first three, mean over the image, one linear layer"
    ),
    "input": f"3x{SIDE}x{SIDE}, resized bilinearly, grey repeated, normalised by its own mean",
    "training": (
        f"{UPDATES} updates of {BATCH} images, SGD with Nesterov momentum 0.9, weight decay 5e-4, "
        f"learning rate up to {PEAK} and down again (one cycle), no augmentation"
    ),
}


def small_network(classes: int, *, seed: int) -> nn.Module:
    """Return the network with fresh weights: 3.4 million multiply-adds."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    inputs = 3
    for at, width in enumerate(WIDTHS):
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if at < 3 else [])]
        inputs = width
    network = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)
    )
    return network.to(memory_format=torch.channels_last)


class Scale:
    """From uint8 images of any size to what the network reads, by the training images' looks."""

    def __init__(self, train: Arrays) -> None:
        pixels = train.images[:5000].astype(np.float32) / 255
        self.mean, self.std = float(pixels.mean()), float(pixels.std())

    def __call__(self, images: np.ndarray) -> Tensor:
        pixels = (torch.from_numpy(images).float() / 255 - self.mean) / self.std
        if pixels.shape[-2:] != (SIDE, SIDE):
            pixels = nn.functional.interpolate(
                pixels, (SIDE, SIDE), mode="bilinear", align_corners=False
            )
        return pixels.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def train_(
    network: nn.Module,
    train: Arrays,
    scale: Scale,
    *,
    seed: int,
    updates: int = UPDATES,
    peak: float = PEAK,
) -> nn.Module:
    """Train for a number of updates, whatever the number of images."""
    random = np.random.default_rng(seed)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=peak, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=updates, cycle_momentum=False
    )
    order = np.zeros(0, dtype=np.int64)
    network.train()
    for _ in range(updates):
        while len(order) < BATCH:
            order = np.concatenate([order, random.permutation(len(train))])
        rows, order = order[:BATCH], order[BATCH:]
        loss = nn.functional.cross_entropy(
            network(scale(train.images[rows])), torch.from_numpy(train.labels[rows])
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def answers(network: nn.Module, images: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the class that the network gives each image [n]."""
    parts = [
        network(scale(images[start : start + 500])).argmax(1).numpy()
        for start in range(0, len(images), 500)
    ]
    return np.concatenate(parts)
