"""What a data set is made of, and how hard its classes are to tell apart."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.checkpoint import InputSpec
from prunecli.complexity.csg import CsgSettings, RepeatedCsg, csg_repeated
from prunecli.complexity.embedding import embed_pixels
from prunecli.data import labels_of, load_split
from prunecli.data.survey import Survey, survey
from prunecli.errors import InputError
from prunecli.progress import Progress, silent
from prunecli.report import ClassCount, DatasetAnalysis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.complexity.neighbours import Floats
    from prunecli.data import DataSource, ImageSet

COMPONENTS = 5
"""Principal components that pixels are embedded in: with more, the volumes of a few samples in
dense places decide the score (effective sample size below 10 of 250 on MNIST and CIFAR-10)."""

LONGEST_SIDE = 64
"""Larger images are shrunk to this for the complexity measure, which sees coarse looks only."""

PAIRS = 10
"""Confused pairs of classes that are reported."""


def analyze_dataset(
    source: DataSource,
    *,
    seed: int = 0,
    limit: int | None = 10_000,
    repeats: int = 30,
    progress: Progress = silent,
) -> DatasetAnalysis:
    """Survey all images of a data set and measure how much its classes overlap.

    The complexity is that of at most `limit` training images, as evenly over the classes as they
    come, or of all images where nothing is set apart for training. Raises `InputError`: `ONE_CLASS`
    (fewer than two classes have images), `UNREADABLE_IMAGES`, `TOO_FEW_SAMPLES`.
    """
    counts = _count_classes(source)
    found = survey(source, progress=progress)
    split, images = _load(source, found, seed=seed, limit=limit, progress=progress)
    points = embed_pixels(images.images, kind=_embedding(images), seed=seed % 2**32)
    labels = images.labels.numpy()
    settings = CsgSettings(seed=seed % 2**32)
    plain = replace(settings, volume="none")
    boxed = csg_repeated(points, labels, repeats=repeats, settings=settings, progress=progress)
    votes = csg_repeated(points, labels, repeats=repeats, settings=plain)
    present = [source.classes[int(label)] for label in np.unique(labels)]
    return DatasetAnalysis(
        path=str(source.path),
        format=source.format,
        images=sum(counts.values()),
        classes=tuple(ClassCount(name, count) for name, count in counts.items()),
        sizes={f"{width}x{height}": count for (width, height), count in found.sizes.items()},
        balance=min(counts.values()) / max(counts.values()),
        unreadable=found.unreadable,
        duplicates=found.duplicates,
        csg=boxed.mean,
        csg_interval=boxed.interval,
        csg_settings=_settings(settings, images, split=split, repeats=repeats),
        eigenvalues=tuple(np.mean([run.eigenvalues for run in boxed.runs], axis=0).tolist()),
        similarity=tuple(tuple(row) for row in _similarity(boxed).tolist()),
        confused_pairs=_confused(_similarity(votes), present),
        csg_votes=votes.mean,
        csg_votes_interval=votes.interval,
        warnings=(*_findings(found), *images.warnings, *boxed.runs[0].warnings),
    )


def _count_classes(source: DataSource) -> dict[str, int]:
    totals = np.zeros(len(source.classes), dtype=np.int64)
    for raw in source.splits.values():
        totals += np.bincount(labels_of(raw), minlength=len(totals))
    if np.count_nonzero(totals) < 2:
        raise InputError(
            f"complexity needs two classes with images, there is {np.count_nonzero(totals)}",
            code="ONE_CLASS",
            where=str(source.path),
            hint="give the folder that holds one folder per class",
        )
    return dict(zip(source.classes, totals.tolist(), strict=True))


def _load(
    source: DataSource, found: Survey, *, seed: int, limit: int | None, progress: Progress
) -> tuple[str, ImageSet]:
    """Return the images that the complexity is measured on, and the name of their split.

    They are loaded as a split `all` of their own: an empty class is a finding here, no error.
    """
    split = "train" if "train" in source.splits else "all"
    chosen = source.splits if split == "all" else {"all": source.splits[split]}
    images = load_split(
        replace(source, splits=chosen),
        "all",
        input=_common_input(found),
        seed=seed,
        limit=limit,
        progress=progress,
    )
    return split, images


def _common_input(found: Survey) -> InputSpec:
    """Return the commonest size of the images, shrunk where it is large."""
    width, height = next(iter(found.sizes), (1, 1))
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    channels = 1 if found.is_grey else 3
    return InputSpec(
        channels=channels,
        height=max(1, round(height * scale)),
        width=max(1, round(width * scale)),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


def _embedding(images: ImageSet) -> str:
    return f"pca-{min(COMPONENTS, len(images), images.images[0].numel())}"


def _settings(
    settings: CsgSettings, images: ImageSet, *, split: str, repeats: int
) -> Mapping[str, Any]:
    pixels = images.images
    return {
        **asdict(settings),
        "repeats": repeats,
        "embedding": _embedding(images),
        "split": split,
        "images": len(images),
        "image_shape": list(pixels.shape[1:]),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn")},
    }


def _similarity(repeated: RepeatedCsg) -> Floats:
    mean: Floats = np.mean([run.similarity for run in repeated.runs], axis=0)
    return mean


def _confused(similarity: Floats, names: list[str]) -> tuple[tuple[str, str, float], ...]:
    rows, columns = np.triu_indices(len(names), k=1)
    values = similarity[rows, columns]
    order = np.argsort(-values, kind="stable")[:PAIRS]
    return tuple(
        (names[rows[pair]], names[columns[pair]], float(values[pair]))
        for pair in order
        if values[pair] > 0
    )


def _findings(found: Survey) -> list[str]:
    counts = {
        "images cannot be read": len(found.unreadable),
        "groups of equal images are in more than one class": found.mislabelled,
        "groups of equal images are in more than one split": found.leaked,
    }
    return [f"{count} {finding}" for finding, count in counts.items() if count]
