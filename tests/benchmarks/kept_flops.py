"""Error against the FLOPs that are kept, on data sets of different complexity.

One network per variant is trained as in expected_error.py, cut to several budgets (L1 norms, the
same share of every layer) and trained a little more; the dense network is trained on as long, and
is what the cut ones are compared with. Scored on images that were not trained on. Writes
kept_flops.csv beside this file row by row; a run that is cut off goes on where it was.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from expected_error import add_row, measure, rows_of
from relation_points import ALL, Point, Variant, variant
from small_network import SIDE, Scale, answers, small_network, train_

import prunecli
from prunecli.data import Arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

TABLE = Path(__file__).with_suffix(".csv")
KEEPS = (1.0, 0.7, 0.5, 0.3, 0.15, 0.07, 0.03)
SCORED = 8000
SEEN = ("pca-32", "none")
UPDATES = 150
PEAK = 0.05

POINTS = (
    Point("CIFAR-10", (3, 5), 2500),
    Point("MNIST", ALL, 400),
    Point("CIFAR-10", ALL, 2500),
    Point("CIFAR-10", (1, 9), 2500),
    Point("digits", ALL, 70),
    Point("CIFAR-10", (0, 2, 4, 6, 8), 2500),
    Point("CIFAR-10", (0, 6), 2500),
    Point("MNIST", ALL, 400, 0.25),
    Point("CIFAR-10", ALL, 2500, 0.25),
    Point("CIFAR-10", (0, 1, 8, 9), 2500),
)


@dataclass(frozen=True)
class Kept:
    """The error of one network after a cut to `asked` of its FLOPs, and a little training.

    `csg` is that of the embedding and volume in `seen_through`; `lost` is the error beyond that of
    the dense network after the same training, `doubt` the standard error of that difference.
    """

    point: str
    data: str
    classes: int
    seen_through: str
    csg: float
    scored_images: int
    asked: float
    flops: float
    error: float
    lost: float
    doubt: float
    seconds: float


def main() -> None:
    """Measure the curve of every variant that is not in the table yet."""
    torch.set_num_threads(1)
    done = {row["point"] for row in rows_of(TABLE)}
    for point in POINTS:
        if point.name not in done:
            # A curve is written as a whole: half of one would be taken for done.
            for row in list(curve(point, variant(point))):
                add_row(TABLE, row)


def curve(point: Point, found: Variant) -> Iterator[Kept]:
    """Yield the error of the dense network, and of every cut of it."""
    train = found.source.splits["train"]
    scored = _some(_together(found.source.splits["test"], found.spare), SCORED)
    scale = Scale(train)
    dense = train_(small_network(len(point.classes), seed=0), train, scale, seed=0)
    (seen,) = (row for row in measure(point, found) if (row.embedding, row.volume) == SEEN)
    reference: np.ndarray | None = None
    for keep in KEEPS:
        start = time.process_time()
        network, flops = _cut(dense, keep)
        train_(network, train, scale, seed=1, updates=UPDATES, peak=PEAK)
        wrong = answers(network, scored.images, scale) != scored.labels
        reference = wrong if reference is None else reference
        more = wrong.astype(float) - reference
        yield Kept(
            point=point.name,
            data=point.family,
            classes=len(point.classes),
            seen_through=f"{seen.embedding} {seen.volume}",
            csg=seen.csg,
            scored_images=len(wrong),
            asked=keep,
            flops=round(flops, 4),
            error=round(float(wrong.mean()), 5),
            lost=round(float(more.mean()), 5),
            doubt=round(float(more.std() / len(more) ** 0.5), 5),
            seconds=round(time.process_time() - start, 1),
        )


def _cut(dense: nn.Module, keep: float) -> tuple[nn.Module, float]:
    """Return a network of its own that keeps at most so much of the FLOPs, and what it keeps."""
    if keep == 1.0:
        return copy.deepcopy(dense), 1.0
    example = torch.zeros(1, 3, SIDE, SIDE)
    result = prunecli.prune(dense, example, flops=keep, signal="l1", align=1)
    return result.model, result.report.cost.kept["flops"]


def _together(first: Arrays, second: Arrays) -> Arrays:
    return Arrays(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
    )


def _some(images: Arrays, count: int) -> Arrays:
    rows = np.random.default_rng(0).permutation(len(images))[:count]
    return Arrays(images.images[rows], images.labels[rows])


if __name__ == "__main__":
    main()
