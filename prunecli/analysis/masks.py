"""What images with masks hold: how many, of which sizes, and the share of every class."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from prunecli.data.decode import read_image
from prunecli.data.masks import IGNORED, mask_of
from prunecli.data.source import Pairs, content_of
from prunecli.progress import Progress, Step, silent
from prunecli.report import MaskAnalysis, MaskClass

if TYPE_CHECKING:
    from prunecli.data import DataSource

IDS = IGNORED + 1


def analyze_masks(source: DataSource, *, progress: Progress = silent) -> MaskAnalysis:
    """Look at every image and mask once.

    Raises `InputError`: `MASK_SIZE`, `BAD_MASK`; images that cannot be read are counted.
    """
    pixels, images = np.zeros(IDS, np.int64), np.zeros(IDS, np.int64)
    sizes: Counter[str] = Counter()
    unreadable: list[str] = []
    parts = {name: raw for name, raw in source.splits.items() if isinstance(raw, Pairs)}
    total, done = sum(map(len, parts.values())), 0
    for raw in parts.values():
        for position in range(len(raw)):
            done += 1
            progress(Step("look at masks", done, total))
            try:
                image = read_image(BytesIO(content_of(raw, position)))
            except (OSError, ValueError):
                unreadable.append(raw.name(position))
                continue
            sizes[f"{image.width}x{image.height}"] += 1
            counts = np.bincount(np.asarray(mask_of(raw, position, image)).ravel(), minlength=IDS)
            pixels += counts
            images += counts > 0
    known = pixels[:IGNORED]
    last = max(int(np.flatnonzero(known).max(initial=-1)) + 1, len(source.classes))
    names = (*source.classes, *(str(at) for at in range(len(source.classes), last)))
    return MaskAnalysis(
        path=str(source.path),
        format=source.format,
        images={name: len(raw) for name, raw in parts.items()},
        sizes=dict(sizes.most_common()),
        classes=tuple(
            MaskClass(name, int(images[at]), float(pixels[at] / max(known.sum(), 1)))
            for at, name in enumerate(names)
        ),
        ignored=float(pixels[IGNORED] / max(pixels.sum(), 1)),
        unreadable=tuple(unreadable),
        warnings=source.problems,
    )
