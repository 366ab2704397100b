"""Segmentation folders, made: shapes on noise, whose masks are exact."""

from __future__ import annotations

import numpy as np
from PIL import Image

CLASSES = ("background", "square", "disc")


def shapes(seed: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return (image [size, size, 3], mask [size, size]) with a square and a disc, or one of them.

    A border of the square, one pixel wide, is to be ignored (255).
    """
    random = np.random.default_rng(seed)
    image = random.integers(0, 90, (size, size, 3))
    mask = np.zeros((size, size), np.uint8)
    rows, columns = np.mgrid[:size, :size]
    side = size // 3
    if seed % 3 != 1:
        y, x = random.integers(1, size - side - 1, 2)
        mask[y - 1 : y + side + 1, x - 1 : x + side + 1] = 255
        mask[y : y + side, x : x + side] = 1
        image[y : y + side, x : x + side] = (220, 40, 40)
    if seed % 3 != 2:
        y, x = random.integers(side // 2 + 1, size - side // 2 - 1, 2)
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= (side / 2) ** 2
        mask[inside] = 2
        image[inside] = (40, 60, 230)
    return image.astype(np.uint8), mask


def write_pairs(folder, *, count=24, size=16, names=("images", "masks"), ending=""):
    """Write images beside masks: `<folder>/images/7.png` and `<folder>/masks/7.png`."""
    for at in range(count):
        image, mask = shapes(at, size)
        for name, pixels, end in zip(names, (image, mask), ("", ending), strict=True):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{at}{end}.png")
    return folder


def write_voc(folder, *, count=12):
    """Write Pascal VOC's layout: palette masks, and lists of its splits."""
    root = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for at in range(count):
        image, mask = shapes(at)
        Image.fromarray(image).save(root / "JPEGImages" / f"a{at}.jpg")
        if at != count - 1:  # the last one is for other tasks, and in no list
            palette = Image.fromarray(mask, mode="L").convert("P")
            palette.putdata(mask.flatten().tolist())
            palette.putpalette([value for at in range(256) for value in (at, 0, 255 - at)])
            palette.save(root / "SegmentationClass" / f"a{at}.png")
    lists = {"train": range(8), "val": range(8, count - 1)}
    for name, members in lists.items():
        listed = root / "ImageSets" / "Segmentation" / f"{name}.txt"
        listed.write_text("".join(f"a{at}\n" for at in members))
    return folder
