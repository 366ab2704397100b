"""Complexity of digits, MNIST and CIFAR-10, with the time and memory that each estimate takes.

Without arguments it looks for the data where the tests do, leaves out what is missing, and writes
csg.csv beside this file. Every estimate is timed alone, on features that are already in memory.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli import data
from prunecli.architectures.reference import InputSpec
from prunecli.complexity import csg, embed_pixels

if TYPE_CHECKING:
    import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("PRUNECLI_SHARED", REPOSITORY.parent / "shared"))
CACHE = Path(os.environ.get("PRUNECLI_CACHE", "~/.cache/prunecli-data")).expanduser()


@dataclass(frozen=True)
class Subject:
    """A data set, the split of it that is measured, and the input it is decoded to."""

    name: str
    place: str
    split: str
    channels: int
    side: int


SUBJECTS = (
    Subject("digits", "digits", "all", 1, 8),
    Subject("MNIST, test images", str(SHARED / "data" / "mnist"), "all", 1, 28),
    Subject("CIFAR-10, training images", str(CACHE / "train"), "all", 3, 32),
)

CASES = (("raw", "box"), ("pca-2", "box"), ("pca-5", "box"), ("pca-5", "none"), ("pca-32", "none"))


@dataclass(frozen=True)
class Row:
    """One data set under one embedding and volume: the score over seeds, and what it took."""

    data: str
    images: int
    classes: int
    features: int
    embedding: str
    volume: str
    samples: float
    neighbours: int
    seeds: str
    csg_mean: float
    csg_min: float
    csg_max: float
    least_effective_samples: float
    decode_seconds: float
    decode_cpu_seconds: float
    embed_seconds: float
    embed_cpu_seconds: float
    csg_seconds: float
    csg_cpu_seconds: float
    process_peak_gib: float


def main() -> None:
    """Print a table and write it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    rows: list[Row] = []
    for subject in SUBJECTS:
        if subject.place == "digits" or Path(subject.place).is_dir():
            rows += measure_subject(subject, arguments.seeds)
            with arguments.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(asdict(rows[0])), lineterminator="\n")
                writer.writeheader()
                writer.writerows(asdict(row) for row in rows)


def load(subject: Subject, limit: int | None = None) -> data.ImageSet:
    """Decode a data set, or as many images of it, evenly over the classes."""
    spec = InputSpec(
        channels=subject.channels,
        height=subject.side,
        width=subject.side,
        mean=(0.0,) * subject.channels,
        std=(1.0,) * subject.channels,
    )
    source = data.open_source(subject.place)
    return data.load_split(source, subject.split, input=spec, seed=0, limit=limit)


def pixels_of(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Return the raw pixels of a data set, as numbers from 0 to 1, and the labels."""
    images = load(subject)
    return embed_pixels(images.images, kind="raw"), images.labels.numpy()


def measure_subject(subject: Subject, seeds: int) -> list[Row]:
    """Decode a data set and measure it under every case."""
    wall, cpu = time.perf_counter(), time.process_time()
    images = load(subject)
    decoding = time.perf_counter() - wall, time.process_time() - cpu
    rows = []
    for embedding, volume in CASES:
        row = measure(subject.name, images, embedding, volume, seeds=seeds, decoding=decoding)
        print(
            f"{row.data:26} {row.embedding:7} {row.volume:5} CSG {row.csg_mean:6.3f} "
            f"({row.csg_min:.3f} to {row.csg_max:.3f})  {row.csg_seconds:6.2f} s "
            f"({row.csg_cpu_seconds:.2f} s of CPU), peak {row.process_peak_gib:.2f} GiB",
            flush=True,
        )
        rows.append(row)
    return rows


def measure(
    name: str,
    images: data.ImageSet,
    embedding: str,
    volume: str,
    *,
    seeds: int,
    decoding: tuple[float, float],
) -> Row:
    """Embed once and score under every seed; the times are medians over seeds."""
    start, start_cpu = time.perf_counter(), time.process_time()
    points = embed_pixels(images.images, kind=embedding)
    embed_seconds = time.perf_counter() - start
    embed_cpu_seconds = time.process_time() - start_cpu
    labels = images.labels.numpy()
    results, walls, cpus = [], [], []
    for seed in range(seeds):
        wall, cpu = time.perf_counter(), time.process_time()
        results.append(csg(points, labels, volume=volume, seed=seed))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    scores = [result.csg for result in results]
    settings = results[0].settings
    return Row(
        data=name,
        images=len(labels),
        classes=len(images.classes),
        features=points.shape[1],
        embedding=embedding,
        volume=volume,
        samples=settings.samples,
        neighbours=settings.neighbours,
        seeds=f"0-{seeds - 1}",
        csg_mean=round(statistics.mean(scores), 4),
        csg_min=round(min(scores), 4),
        csg_max=round(max(scores), 4),
        least_effective_samples=round(float(min(r.effective_samples.min() for r in results)), 1),
        decode_seconds=round(decoding[0], 2),
        decode_cpu_seconds=round(decoding[1], 2),
        embed_seconds=round(embed_seconds, 3),
        embed_cpu_seconds=round(embed_cpu_seconds, 3),
        csg_seconds=round(statistics.median(walls), 3),
        csg_cpu_seconds=round(statistics.median(cpus), 3),
        process_peak_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    )


if __name__ == "__main__":
    main()
