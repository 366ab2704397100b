"""Random changes to whole batches of uint8 images, and what a network sees of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from prunecli.registry import Registry

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.data import DataSource

Augmentation: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""(uint8 [n, C, H, W] on any device, a generator on the CPU) -> images of the same shape."""

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")

WRITING = frozenset({"digits", "mnist-idx"})
"""Formats whose images change their meaning when they are mirrored."""


def augmentation_for(name: str, source: DataSource, input_spec: InputSpec) -> Augmentation:
    """Return an augmentation by name; `auto` crops and mirrors colour photographs, nothing else."""
    photographs = input_spec.channels == 3 and source.format not in WRITING
    chosen = ("crop-flip" if photographs else "none") if name == "auto" else name
    return AUGMENTATIONS.get(chosen)


GEOMETRIC = ("auto", "none", "flip", "crop", "crop-flip")
"""Those that move pixels and change none: masks can follow them."""


def augmented(
    augmentation: Augmentation, images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return changed images with their labels; masks [n, H, W] move as their images do.

    What comes in from outside is ignored there (255).
    """
    if labels.ndim == 1:
        return augmentation(images, generator), labels
    state = generator.get_state()
    changed = augmentation(images, generator)
    generator.set_state(state)
    # Black, 0, comes in: one more modulo 256 and one less again makes it 255, and 255 itself.
    return changed, augmentation((labels + 1)[:, None], generator)[:, 0] - 1


@AUGMENTATIONS.register("none", summary="Images as they are.")
def unchanged(images: Tensor, _generator: torch.Generator) -> Tensor:
    """Return the images."""
    return images


@AUGMENTATIONS.register("flip", summary="Every other image mirrored, by chance.")
def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror images left to right with probability 1/2."""
    return _shift_and_flip(images, generator, margin=0, mirror=True)


@AUGMENTATIONS.register("crop", summary="Shifted by up to an eighth of the side, black comes in.")
def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop images at random out of themselves padded by an eighth: 4 pixels for 32."""
    return _shift_and_flip(images, generator, margin=images.shape[-1] // 8, mirror=False)


@AUGMENTATIONS.register(
    "crop-flip",
    summary="`crop` and `flip`.",
    source="He et al. 2016, arXiv 1512.03385, section 4.2",
)
def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop and mirror at random."""
    return _shift_and_flip(images, generator, margin=images.shape[-1] // 8, mirror=True)


def _shift_and_flip(
    images: Tensor, generator: torch.Generator, *, margin: int, mirror: bool
) -> Tensor:
    """Do both with one gather per batch; what comes back is channels-last in memory."""
    count, _, height, width = images.shape
    top = torch.randint(2 * margin + 1, (count, 1), generator=generator)
    left = torch.randint(2 * margin + 1, (count, 1), generator=generator)
    rows = torch.arange(height) + top
    columns = torch.arange(width) + left
    if mirror:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded_width = width + 2 * margin
    flat = (rows * padded_width)[:, :, None] + columns[:, None, :]
    flat += torch.arange(count)[:, None, None] * ((height + 2 * margin) * padded_width)
    padded = nn.functional.pad(images.permute(0, 2, 3, 1), (0, 0, margin, margin, margin, margin))
    pixels = padded.reshape(-1, images.shape[1])
    return pixels[flat.to(images.device)].permute(0, 3, 1, 2)
