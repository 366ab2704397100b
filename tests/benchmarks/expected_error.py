"""Test error of one small network on variants of digits, MNIST and CIFAR-10, beside their CSG.

Three steps, each kept row by row, so that a run that is cut off goes on where it was:

    python tests/benchmarks/expected_error.py train   # expected_error.csv
    python tests/benchmarks/expected_error.py csg     # expected_error_csg.csv

The complexity is that of the training images alone, with their labels as they are, measured as
`prunecli analyze` measures it.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from relation_points import Point, Variant, points, variant
from small_network import Scale, answers, small_network, train_

from prunecli.complexity import CsgSettings, csg_repeated
from prunecli.complexity.points import see
from prunecli.data.survey.survey import Survey
from prunecli.options import ComplexityOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
EMBEDDINGS = (None, "pca-32")
"""None: what `analyze` takes by default."""

VOLUMES = ("box", "none")


@dataclass(frozen=True)
class Trained:
    """The error of the network on one variant; `clean_error` is that on labels without noise."""

    point: str
    data: str
    classes: int
    train_images: int
    test_images: int
    side: int
    channels: int
    noise: float
    seed: int
    error: float
    clean_error: float
    train_error: float
    seconds: float


@dataclass(frozen=True)
class Measured:
    """The CSG of one variant through one embedding, with one volume."""

    point: str
    embedding: str
    volume: str
    samples: int
    neighbours: int
    variant: str
    repeats: int
    images: int
    balance: float
    csg: float
    deviation: float


def main() -> None:
    """Take one of the steps."""
    steps: dict[str, Callable[[], None]] = {"train": train_all, "csg": measure_all}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=tuple(steps))
    torch.set_num_threads(1)
    steps[parser.parse_args().step]()


def train_all() -> None:
    """Train on every variant that is not in the table yet."""
    table = HERE / "expected_error.csv"
    done = {(row["point"], row["seed"]) for row in rows_of(table)}
    for point in points():
        for seed in point.seeds:
            if (point.name, str(seed)) not in done:
                add_row(table, train_one(point, variant(point), seed))


def train_one(point: Point, found: Variant, seed: int) -> Trained:
    """Train on one variant and score on its test images."""
    start = time.process_time()
    train, test = found.source.splits["train"], found.source.splits["test"]
    scale = Scale(train)
    network = small_network(len(point.classes), seed=seed)
    train_(network, train, scale, seed=seed)
    given = answers(network, test.images, scale)
    learnt = answers(network, train.images[:2000], scale)
    return Trained(
        point=point.name,
        data=point.family,
        classes=len(point.classes),
        train_images=len(train),
        test_images=len(test),
        side=train.images.shape[-1],
        channels=train.images.shape[1],
        noise=point.noise,
        seed=seed,
        error=round(float((given != test.labels).mean()), 5),
        clean_error=round(float((given != found.clean_labels).mean()), 5),
        train_error=round(float((learnt != train.labels[:2000]).mean()), 5),
        seconds=round(time.process_time() - start, 1),
    )


def measure_all() -> None:
    """Measure the complexity of every variant that was trained on, in every way."""
    table = HERE / "expected_error_csg.csv"
    done = {row["point"] for row in rows_of(table)}
    trained = {row["point"] for row in rows_of(HERE / "expected_error.csv")}
    for point in points():
        if point.name in trained - done:
            # All rows of a variant at once: some of them would be taken for all.
            for row in list(measure(point, variant(point))):
                add_row(table, row)


def measure(point: Point, found: Variant) -> Iterator[Measured]:
    """Yield the complexity of a variant's training images through every embedding and volume."""
    train = found.source.splits["train"]
    _, channels, height, width = train.images.shape
    counts = np.bincount(train.labels)
    looks = Survey(
        sizes={(width, height): len(train)},
        modes={"L" if channels == 1 else "RGB": len(train)},
        unreadable=(),
        duplicates=(),
        mislabelled=0,
        leaked=0,
        kinds={},
        near_duplicates=(),
        listed={},
        looked_at=len(train),
        total=len(train),
    )
    for embedding in EMBEDDINGS:
        options = replace(ComplexityOptions(), embedding=embedding)
        seen = see(found.source, looks, options=options, seed=0)
        for volume in VOLUMES:
            settings = CsgSettings(volume=volume)
            scored = csg_repeated(
                seen.points, seen.labels, repeats=options.repeats, settings=settings
            )
            yield Measured(
                point=point.name,
                embedding=seen.embedding,
                volume=volume,
                samples=int(settings.samples),
                neighbours=settings.neighbours,
                variant=settings.variant,
                repeats=options.repeats,
                images=len(seen.labels),
                balance=round(float(counts.min() / counts.max()), 4),
                csg=round(scored.mean, 5),
                deviation=round(scored.standard_deviation, 5),
            )


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none, where it is not there."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def add_row(table: Path, row: object) -> None:
    """Append one row to a table, and say it."""
    values = asdict(row)
    fresh = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(values), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(values)
    print(*values.values(), sep="  ", flush=True)


if __name__ == "__main__":
    main()
