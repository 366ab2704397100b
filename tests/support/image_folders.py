"""Folders of images, made."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write_folder(folder, *, classes=("cat", "dog"), count=12):
    random = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for at in range(count):
            pixels = random.integers(0, 100, (8, 8, 3)) + 100 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{at}.png")
    return folder


def write_three_digits(folder, *, count=700):
    """Write handwritten digits of three classes, a quarter of them to test on."""
    digits, taken = load_digits(), {1: "one", 4: "four", 7: "seven"}
    for at in range(count):
        name = taken.get(int(digits.target[at]))
        if name is None:
            continue
        place = folder / ("test" if at % 4 == 0 else "train") / name
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((digits.images[at] * 15.9).astype(np.uint8))
        image.save(place / f"{at}.png")
    return folder
