"""How the time and memory of a complexity estimate grow with the number of samples.

Synthetic features: 128 dimensions, 1,000 classes that overlap, M = 20 samples of each, k = 3. Every
size is measured in a process of its own, which holds the features as float32; making them is not
counted in the seconds, but is in the peak of the memory. Other work on the machine shows as wall
time beyond the seconds of CPU. The row of a size is replaced in csg_scale.csv when it is measured
again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIZES = (5_000, 20_000, 80_000, 320_000, 1_280_000)
FEATURES = 128
CLASSES = 1_000
SAMPLES = 20
NEIGHBOURS = 3
SPREAD = 2.0
"""Standard deviation within a class, where that of the centres is one."""


def main() -> None:
    """Measure every size in its own process and write a row after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--one", action="store_true", help="measure the size here, print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.sizes[0])))
        return
    for size in arguments.sizes:
        found = subprocess.run(
            [sys.executable, __file__, "--one", "--sizes", str(size)],
            check=True,
            capture_output=True,
            text=True,
        )
        row = json.loads(found.stdout)
        print(row, flush=True)
        keep(arguments.out, row)


def keep(path: Path, row: dict[str, float]) -> None:
    """Put a row into the table, in the place of an older one of the same size."""
    rows = {}
    if path.exists():
        with path.open(newline="") as file:
            rows = {int(old["samples"]): old for old in csv.DictReader(file)}
    rows[int(row["samples"])] = {name: str(value) for name, value in row.items()}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[size] for size in sorted(rows))


def measure(size: int) -> dict[str, float]:
    """Return seconds and peak memory of one estimate over `size` samples."""
    import torch

    from prunecli.complexity import csg

    features, labels = synthetic(size)
    wall, cpu = time.perf_counter(), time.process_time()
    result = csg(features, labels, samples=SAMPLES, neighbours=NEIGHBOURS)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "samples": size,
        "features": FEATURES,
        "classes": CLASSES,
        "drawn": len(result.samples),
        "neighbours": NEIGHBOURS,
        "csg": round(result.csg, 4),
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "features_gib": round(features.nbytes / 2**30, 3),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def synthetic(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features [size, 128] around a centre per class, and the classes in turn."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLASSES, FEATURES), dtype=np.float32)
    labels = np.arange(size) % CLASSES
    features = random.standard_normal((size, FEATURES), dtype=np.float32)
    features *= SPREAD
    for start in range(0, size, 65_536):
        features[start : start + 65_536] += centres[labels[start : start + 65_536]]
    return features, labels


if __name__ == "__main__":
    main()
