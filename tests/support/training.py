"""A small network and quick settings for training tests."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from prunecli.architectures.reference import InputSpec
from prunecli.options import FinetuneOptions

GREY = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.35,))


QUICK = FinetuneOptions(epochs=2, batch_size=64, limit=320, amp="no")


def make_net(seed: int = 0, classes: int = 10) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(256, classes),
    )


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


FULL = dataclasses.replace(QUICK, epochs=3, ema=0.9, augment="crop", alpha=0.5)
