"""What a network sees of images: normalised pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec


def normalise(
    images: Tensor,
    input_spec: InputSpec,
    *,
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Return (images / 255 - mean) / std as float32 [n, C, H, W], from uint8 alike."""
    shape = (1, -1, 1, 1)
    mean = torch.tensor(input_spec.mean, device=images.device).view(shape) * 255
    std = torch.tensor(input_spec.std, device=images.device).view(shape) * 255
    pixels = images.to(dtype=torch.float32, memory_format=memory_format)
    return pixels.sub_(mean).div_(std)
