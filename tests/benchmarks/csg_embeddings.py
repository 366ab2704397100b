"""Complexity of digits, MNIST and CIFAR-10 through every embedding, as the paper's experiments do.

M = 100 samples of each class, k = 3, mean over 30 draws with its 95 % interval. Raw pixels,
principal components and a network's features are those of all images; t-SNE and autoencoders, which
take long, see at most 10,000 images at random, evenly over the classes. A row is written to
csg_embeddings.csv after every measurement and replaces an older one. `--codes` names a folder where
what an autoencoder made is kept, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from csg import SHARED, SUBJECTS, Subject, load

from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.complexity import CsgSettings, csg_by_volume, embed_pixels
from prunecli.complexity.autoencoder import codes
from prunecli.complexity.embedding import tsne, uniform_features
from prunecli.verbs.images import features_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.data import ImageSet

IMAGES = 10_000
"""Most images that dear embeddings see."""

SETTINGS = CsgSettings(samples=100, neighbours=3)
REPEATS = 30
KEY = ("data", "images", "embedding", "epochs")
NETWORK = SHARED / "checkpoints" / "resnet20-jpeg.pt"


def main() -> None:
    """Measure what is asked for and write a row after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=[subject.name for subject in SUBJECTS])
    parser.add_argument("--embeddings", nargs="+", default=list(EMBEDDED))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--codes", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    for subject in SUBJECTS:
        if subject.name in arguments.data:
            for embedding in arguments.embeddings:
                row = measure(subject, embedding, arguments.epochs, arguments.codes)
                if row is not None:
                    print(row, flush=True)
                    keep(arguments.out, row)


def measure(
    subject: Subject, embedding: str, epochs: int, folder: Path | None
) -> dict[str, object] | None:
    """Embed and score; None where there is nothing to measure with."""
    if embedding == "model" and subject.channels != 3:
        return None
    dear = "autoencoder" in embedding or "tsne" in embedding
    images = load(subject, limit=IMAGES if dear else None)
    kept = None if folder is None else folder / f"{subject.name.split()[0].strip(',')}-{epochs}.npy"
    start = time.process_time()
    points = EMBEDDED[embedding](images, epochs, kept)
    seconds = time.process_time() - start
    found = csg_by_volume(
        points,
        images.labels.numpy(),
        volumes=("box", "none"),
        repeats=REPEATS,
        settings=SETTINGS,
    )
    box, votes = found["box"], found["none"]
    return {
        "data": subject.name,
        "images": len(images),
        "embedding": embedding,
        "epochs": epochs if "autoencoder" in embedding else "",
        "features": points.shape[1],
        "samples": SETTINGS.samples,
        "neighbours": SETTINGS.neighbours,
        "repeats": REPEATS,
        "csg": round(box.mean, 4),
        "low": round(box.interval[0], 4),
        "high": round(box.interval[1], 4),
        "deviation": round(box.standard_deviation, 4),
        "votes": round(votes.mean, 4),
        "votes_deviation": round(votes.standard_deviation, 4),
        "least_effective": round(float(min(r.effective_samples.min() for r in box.runs)), 1),
        "embed_cpu_seconds": round(seconds, 1),
    }


def keep(path: Path, row: dict[str, object]) -> None:
    """Put a row into the table, in the place of an older one of the same measurement."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    if path.exists():
        with path.open(newline="") as file:
            rows = {tuple(old[name] for name in KEY): old for old in csv.DictReader(file)}
    rows[tuple(str(row[name]) for name in KEY)] = {name: str(row[name]) for name in row}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def by_name(kind: str) -> Callable[[ImageSet, int, Path | None], np.ndarray]:
    """Return an embedding that needs no more than its name."""
    return lambda images, _, __: embed_pixels(images.images, kind=kind)


def by_autoencoder(images: ImageSet, epochs: int, kept: Path | None) -> np.ndarray:
    """Return what the autoencoder makes of images, uniform in every feature."""
    return uniform_features(_codes(images, epochs, kept))


def by_autoencoder_and_tsne(images: ImageSet, epochs: int, kept: Path | None) -> np.ndarray:
    """Return t-SNE in three dimensions of what the autoencoder makes: the paper's headline."""
    from prunecli.complexity.embedding import Request
    from prunecli.progress import silent

    return tsne(_codes(images, epochs, kept), Request(None, 0, None, epochs, "cpu", silent))


def by_network(images: ImageSet, _: int, __: Path | None) -> np.ndarray:
    """Return what the last layer of a network trained on CIFAR-10 reads."""
    checkpoint = read(NETWORK).checkpoint
    features = features_of(instantiate(checkpoint), checkpoint.input)
    return embed_pixels(images.images, kind="model", features=features)


def _codes(images: ImageSet, epochs: int, kept: Path | None) -> np.ndarray:
    if kept is not None and kept.exists():
        return np.load(kept)
    found = codes(images.images, epochs=epochs)
    if kept is not None:
        np.save(kept, found)
    return found


EMBEDDED = {
    "raw": by_name("raw"),
    "pca-5": by_name("pca-5"),
    "pca-32": by_name("pca-32"),
    "model": by_network,
    "tsne": by_name("tsne"),
    "autoencoder": by_autoencoder,
    "autoencoder+tsne": by_autoencoder_and_tsne,
}


if __name__ == "__main__":
    main()
