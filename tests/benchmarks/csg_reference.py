"""The complexity estimate against its reference implementation, in one run on the same features.

The reference is the package spectral-metric (MIT), which this script alone needs: install it beside
prunecli, `pip install spectral-metric`. Both estimate the cumulative spectral gradient of digits,
of MNIST and of CIFAR-10, with M = 250 samples of each class and k = 3, one after the other for
every seed. The reference has no seed of its own and draws anew every time; it is given ours, so
that both look at the same samples. Then all draws are estimated at once, as a mean with its
interval is, where prunecli looks around every sample once and the reference starts anew each time.
A row is written to csg_reference.csv after every data set.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from csg import SUBJECTS, Subject, pixels_of

from prunecli.complexity import CsgSettings, csg, csg_repeated

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Score = TypeVar("Score")

SAMPLES = 250
NEIGHBOURS = 3


@dataclass(frozen=True)
class Row:
    """Both estimates of one data set: means over seeds, medians of the seconds of one draw.

    `all_cpu_seconds` are those of all draws at once, `faster_all` how many times those the
    reference takes for as many, in CPU seconds.
    """

    data: str
    images: int
    features: int
    samples: int
    neighbours: int
    seeds: int
    csg: float
    reference_csg: float
    largest_difference: float
    seconds: float
    reference_seconds: float
    cpu_seconds: float
    reference_cpu_seconds: float
    faster_wall: float
    faster_cpu: float
    all_cpu_seconds: float
    faster_all: float
    threads: str
    load_average: float
    reference_version: str


def main() -> None:
    """Measure every data set that is there and write a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    rows = []
    for subject in SUBJECTS:
        if subject.place == "digits" or Path(subject.place).is_dir():
            rows.append(measure(subject, arguments.seeds))
            print(rows[-1], flush=True)
            with arguments.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
                writer.writeheader()
                writer.writerows(asdict(row) for row in rows)


def measure(subject: Subject, seeds: int) -> Row:
    """Estimate with both in turn, seed by seed."""
    points, labels = pixels_of(subject)
    ours, theirs = [], []
    for seed in range(seeds):
        ours.append(timed(lambda seed=seed: our_score(points, labels, seed)))
        theirs.append(timed(lambda seed=seed: reference_score(points, labels, seed)))
        print(subject.name, seed, ours[-1], theirs[-1], flush=True)
    all_scores, _, all_cpu = timed(lambda: our_scores(points, labels, seeds))
    score, wall, cpu = np.array(ours).T
    their_score, their_wall, their_cpu = np.array(theirs).T
    assert np.array_equal(all_scores, score)
    return Row(
        data=subject.name,
        images=len(labels),
        features=points.shape[1],
        samples=SAMPLES,
        neighbours=NEIGHBOURS,
        seeds=seeds,
        csg=round(float(score.mean()), 4),
        reference_csg=round(float(their_score.mean()), 4),
        largest_difference=float(f"{abs(score - their_score).max():.1e}"),
        seconds=round(float(np.median(wall)), 3),
        reference_seconds=round(float(np.median(their_wall)), 3),
        cpu_seconds=round(float(np.median(cpu)), 3),
        reference_cpu_seconds=round(float(np.median(their_cpu)), 3),
        faster_wall=round(float(np.median(their_wall / wall)), 1),
        faster_cpu=round(float(np.median(their_cpu / cpu)), 1),
        all_cpu_seconds=round(all_cpu, 3),
        faster_all=round(float(their_cpu.sum() / all_cpu), 1),
        threads=os.environ.get("OMP_NUM_THREADS", "all"),
        load_average=round(os.getloadavg()[0], 1),
        reference_version=version("spectral-metric"),
    )


def timed(score: Callable[[], Score]) -> tuple[Score, float, float]:
    """Return a score with the seconds of wall time and of CPU that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = score()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def our_score(points: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> float:
    """Return prunecli's estimate."""
    return csg(points, labels, samples=SAMPLES, neighbours=NEIGHBOURS, seed=seed).csg


def our_scores(
    points: NDArray[np.float32], labels: NDArray[np.int64], seeds: int
) -> NDArray[np.float64]:
    """Return prunecli's estimates of the draws with seeds from 0."""
    settings = CsgSettings(samples=SAMPLES, neighbours=NEIGHBOURS)
    found = csg_repeated(points, labels, repeats=seeds, settings=settings)
    return np.array([run.csg for run in found.runs])


def reference_score(points: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> float:
    """Return the reference's estimate of the samples that it draws for `seed`."""
    from spectral_metric.estimator import CumulativeGradientEstimator
    from spectral_metric.lib import find_samples

    estimator = CumulativeGradientEstimator(M_sample=SAMPLES, k_nearest=NEIGHBOURS)
    # What its `fit` does, but for the seed.
    estimator.n_class = int(labels.max()) + 1
    samples, estimator.class_indices = find_samples(
        points, labels, estimator.n_class, M=SAMPLES, seed=seed
    )
    estimator.compute(points, labels, samples)
    return float(estimator.csg.item())


if __name__ == "__main__":
    main()
