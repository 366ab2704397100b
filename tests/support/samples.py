"""Sample networks and images that several tests share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import prunecli_sample_models
from prunecli_sample_models import networks
from tests.support.weights import randomize_

VGG = Path(prunecli_sample_models.__file__).parent / "digits_vgg.safetensors"


def images(count: int = 40, shape: tuple[int, ...] = (1, 8, 8)):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(count, *shape, generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return lambda: list(zip(pixels.split(16), labels.split(16), strict=True))


def sample(name: str) -> nn.Module:
    return randomize_(getattr(networks, name)(), seed=5).eval()
