"""Checkpoints as people's trainings leave them, and what they must give back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import Loaded, load
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


def trained(model: nn.Module) -> nn.Module:
    """Return a module in evaluation mode in which nothing is the identity by accident."""
    return randomize_(model, seed=0).eval()


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_is_read_as(
    path: Path, model: nn.Module, *, size: int | None = None, **choices: Any
) -> Loaded:
    """Assert that the network in a file computes what the module computes that was saved.

    `size` is that of the images to compare on, where those of the file are large.
    """
    loaded = load(path, **choices)
    channels, height, width = loaded.checkpoint.input.shape
    shape = (channels, size or height, size or width)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(images), instantiate(loaded.checkpoint)(images)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert float(expected.std()) > 0
    return loaded
