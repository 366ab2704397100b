"""From an image file or array of any kind to the uint8 pixels that a network takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from prunecli.errors import InputError
from prunecli.report import Preparation

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BytesIO
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.architectures.reference import InputSpec

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for each number of channels that images can be brought to."""

KINDS = {
    "1": "black and white",
    "L": "grayscale",
    "LA": "grayscale with transparency",
    "P": "palette",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "CMYK": "CMYK",
    "I": "16-bit",
    "I;16": "16-bit",
    "I;16B": "16-bit",
    "I;16L": "16-bit",
}

MOST = 90_000_000
"""Pixels above which an image is not decoded: a small file may ask for gigabytes."""

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are decoded, by Pillow's names; for PostScript it would start another program."""

LARGE = 128
"""Side from which images are resized larger than the input and cropped, as ImageNet's are."""


def mode_for(spec: InputSpec) -> str:
    """Return the Pillow mode of a network's input; raise `InputError` when there is none."""
    mode = MODES.get(spec.channels)
    if mode is None:
        raise InputError(
            f"images cannot be brought to {spec.channels} channels",
            code="UNSUPPORTED_CHANNELS",
            hint=f"models that take images have one of {sorted(MODES)} channels",
        )
    return mode


def read_image(file: Path | BytesIO, *, least: tuple[int, int] | None = None) -> Image.Image:
    """Open and fully decode an image file; raises `OSError` or `ValueError` for a broken one.

    One of more pixels than `MOST` is refused as broken. A JPEG may be decoded at a half, a quarter
    or an eighth of its size, at a fraction of the time, if `least` (width, height) are left.
    """
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MOST:
            raise OSError(f"{image.width} x {image.height} pixels are too many")
        if least is not None:
            image.draft(None, least)
        image.load()
        return image


def to_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return uint8 [C, H, W] as a Pillow image."""
    if pixels.shape[0] == 1:
        return Image.fromarray(pixels[0])
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def to_pixels(image: Image.Image, spec: InputSpec) -> tuple[NDArray[np.uint8], str]:
    """Return (uint8 [C, H, W], what the image was when it had to be converted, or "").

    An image of another size is resized by its shorter side and cropped in the middle, as
    torchvision's transforms for classification do.
    """
    mode = mode_for(spec)
    kind = "" if image.mode == mode else KINDS.get(image.mode, image.mode)
    image = fit(in_mode(image, mode), height=spec.height, width=spec.width)
    pixels = np.asarray(image)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), kind


def whole_pixels(image: Image.Image, mode: str) -> Tensor:
    """Return a picture in its own size, uint8 [C, h, w]."""
    pixels = np.array(in_mode(image, mode))
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in one of Pillow's modes `MODES`, as networks see it."""
    if image.mode == mode:
        return image
    return _CONVERSIONS.get(image.mode, _convert)(image, mode)


def fit(
    image: Image.Image,
    *,
    height: int,
    width: int,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """Return the image at exactly this size; one that has it already is left alone.

    Large inputs see the middle 224 of 256 parts, small ones all of the shorter side.
    """
    if image.size == (width, height):
        return image
    least = _least(height, width)
    scale = max(least[0] / image.height, least[1] / image.width)
    size = max(int(image.width * scale), width), max(int(image.height * scale), height)
    resized = image.resize(size, resample)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return resized.crop((left, top, left + width, top + height))


def preparation(spec: InputSpec) -> Preparation:
    """Return how `to_pixels` and `normalise` bring images to a model."""
    size = (spec.height, spec.width)
    return Preparation(size, _least(*size), spec.channels, spec.mean, spec.std)


def _least(height: int, width: int) -> tuple[int, int]:
    """Return the least height and width that an image is resized to before it is cropped."""
    margin = 256 / 224 if min(height, width) >= LARGE else 1.0
    return round(height * margin), round(width * margin)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    return image.convert(mode)


def _convert_palette(image: Image.Image, mode: str) -> Image.Image:
    # A palette may carry transparency, which Pillow only resolves on the way through RGBA.
    return image.convert("RGBA").convert(mode)


def _convert_deep(image: Image.Image, mode: str) -> Image.Image:
    """Bring 16 bits a pixel to 8: `convert` would clip everything above 255 to white."""
    deep = np.asarray(image).astype(np.float64)
    top = 65535.0 if deep.max(initial=0) > 255 else 255.0
    grey = np.rint(deep.clip(0, top) * (255.0 / top)).astype(np.uint8)
    return Image.fromarray(grey).convert(mode)


_CONVERSIONS: dict[str, Callable[[Image.Image, str], Image.Image]] = {
    "P": _convert_palette,
    "I": _convert_deep,
    "I;16": _convert_deep,
    "I;16B": _convert_deep,
    "I;16L": _convert_deep,
    "F": _convert_deep,
}
