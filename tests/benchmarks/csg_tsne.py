"""t-SNE by scikit-learn and by openTSNE: seconds, how well neighbours are kept, and the CSG.

openTSNE (BSD-3) is needed by this script alone: `pip install opentsne`. Both start from the same
principal components with perplexity 30 on digits, 10,000 test images of MNIST and 10,000 training
images of CIFAR-10 (after PCA to 50 dimensions where there are more). openTSNE interpolates on a
grid in two dimensions (FIt-SNE) and takes a Barnes-Hut tree in three. Trustworthiness is that of 12
neighbours on 2,000 points at random; CSG is over 30 draws of 100 with k = 3. A row is written to
csg_tsne.csv after every measurement, and replaces an older one.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np
from csg import SUBJECTS, Subject, load
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

from prunecli.complexity import CsgSettings, csg_repeated, embed_pixels

IMAGES = 10_000
COMPONENTS = 50
PERPLEXITY = 30
SAMPLE = 2_000


def by_sklearn(points: np.ndarray, size: int) -> np.ndarray:
    """Return what scikit-learn makes of it, with its defaults."""
    tsne = TSNE(size, perplexity=PERPLEXITY, init="pca", random_state=0, n_jobs=-1)
    return tsne.fit_transform(points)


def by_opentsne(points: np.ndarray, size: int) -> np.ndarray:
    """Return what openTSNE makes of it, with its defaults."""
    import openTSNE

    method = "fft" if size < 3 else "bh"
    tsne = openTSNE.TSNE(
        size,
        perplexity=PERPLEXITY,
        initialization="pca",
        random_state=0,
        n_jobs=-1,
        negative_gradient_method=method,
    )
    return np.asarray(tsne.fit(points))


LIBRARIES = {"scikit-learn": by_sklearn, "openTSNE": by_opentsne}


def main() -> None:
    """Measure every data set, library and number of dimensions, the cheapest first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=[subject.name for subject in SUBJECTS])
    parser.add_argument("--sizes", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    for subject in SUBJECTS:
        if subject.name not in arguments.data:
            continue
        points, labels = components(subject)
        for size in arguments.sizes:
            for library in arguments.libraries:
                row = {
                    "data": subject.name,
                    "images": len(labels),
                    "dimensions": size,
                    "library": library,
                    **measure(points, labels, LIBRARIES[library], size),
                }
                print(row, flush=True)
                keep(arguments.out, row)


def components(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of at most 10,000 images, in at most 50 dimensions, and the labels."""
    images = load(subject, limit=IMAGES)
    points = embed_pixels(images.images, kind="raw")
    if points.shape[1] > COMPONENTS:
        points = PCA(COMPONENTS, random_state=0).fit_transform(points)
    return points.astype(np.float32), images.labels.numpy()


def measure(points: np.ndarray, labels: np.ndarray, embed, size: int) -> dict[str, object]:
    """Return seconds, trustworthiness and CSG of one embedding."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = embed(points, size)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    scaled = found / np.abs(found).max()
    sample = np.random.default_rng(0).permutation(len(points))[:SAMPLE]
    row: dict[str, object] = {
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "trustworthiness": round(trustworthiness(points[sample], found[sample], n_neighbors=12), 4),
    }
    for volume in ("box", "none"):
        repeated = csg_repeated(scaled, labels, settings=CsgSettings(samples=100, volume=volume))
        row[f"csg_{volume}"] = round(repeated.mean, 4)
        row[f"csg_{volume}_deviation"] = round(repeated.standard_deviation, 4)
    return {**row, "threads": os.environ.get("OMP_NUM_THREADS", "all")}


def keep(path: Path, row: dict[str, object]) -> None:
    """Put a row into the table, in the place of an older one of the same measurement."""
    key = ("data", "dimensions", "library")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    if path.exists():
        with path.open(newline="") as file:
            rows = {tuple(old[name] for name in key): old for old in csv.DictReader(file)}
    rows[tuple(str(row[name]) for name in key)] = {name: str(row[name]) for name in row}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


if __name__ == "__main__":
    main()
