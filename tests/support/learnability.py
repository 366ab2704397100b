"""A small network and quick settings for tests of learnability."""

from __future__ import annotations

import torch
from torch import nn

from prunecli.options import FinetuneOptions


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 10),
    )  # fmt: skip


def quick(**changes):
    usual = {"epochs": 3, "batch_size": 32, "limit": 300, "lr": 0.05, "amp": "no"}
    return FinetuneOptions(**{**usual, **changes})
