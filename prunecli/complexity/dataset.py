"""What a data set is made of, and how hard its classes are to tell apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecli.checkpoint import InputSpec
from prunecli.complexity.classes import class_map, confusing_images, difficulties
from prunecli.complexity.csg import CsgSettings, RepeatedCsg, csg_repeated
from prunecli.complexity.embedding import Features, Points, embed_pixels, parse
from prunecli.complexity.reduction import SUBSET_RULES, reduction
from prunecli.data import labels_of, load_split
from prunecli.data.cache import cached
from prunecli.data.subset import write_subset
from prunecli.data.survey import Survey, survey
from prunecli.errors import InputError
from prunecli.options import ComplexityOptions
from prunecli.progress import Progress, silent
from prunecli.report import ClassCount, DatasetAnalysis, Subset

if TYPE_CHECKING:
    from prunecli.complexity.neighbours import Floats
    from prunecli.data import DataSource, ImageSet
    from prunecli.report import Reduction

COMPONENTS = 5
"""Principal components that pixels are embedded in: with more, the volumes of a few samples in
dense places decide the score (effective sample size below 10 of 250 on MNIST and CIFAR-10)."""

LONGEST_SIDE = 64
"""Larger images are shrunk to this for the complexity measure, which sees coarse looks only."""

PAIRS = 10
"""Confused pairs of classes that are reported."""

ARRAYS = 8
"""Temporary arrays that live at a time, at most; the memory that may be used is shared by them."""

CHEAP = frozenset({"raw", "pca"})
"""Embeddings that are computed faster than they are read from a disk."""


@dataclass(frozen=True)
class NetworkFeatures:
    """What the embedding `model` looks through: a network's input, features, and weights' digest.

    `features` takes uint8 images as `input` has them and gives [n, d].
    """

    input: InputSpec
    features: Features
    digest: str


def analyze_dataset(
    source: DataSource,
    *,
    options: ComplexityOptions | None = None,
    seed: int = 0,
    network: NetworkFeatures | None = None,
    progress: Progress = silent,
) -> DatasetAnalysis:
    """Survey all images of a data set and measure how much its classes overlap.

    The complexity is that of at most `options.limit` training images, as evenly over the classes as
    they come, or of all images where nothing is set apart for training; `network` says what the
    embedding `model` looks through. Raises `InputError`: `ONE_CLASS` (fewer than two classes have
    images), `UNREADABLE_IMAGES`, `TOO_FEW_SAMPLES`, and what the options may be wrong about.
    """
    options = options or ComplexityOptions()
    seed %= 2**32
    counts = _count_classes(source)
    found = survey(source, progress=progress)
    spec = _common_input(found) if network is None else network.input
    split, images = _load(source, spec, seed=seed, limit=options.limit, progress=progress)
    kind = options.embedding or _embedding(images)
    points, cached = _embedded(images, kind, options, seed=seed, network=network, progress=progress)
    labels = images.labels.numpy()
    settings = CsgSettings(
        samples=options.samples,
        neighbours=options.neighbours,
        volume=options.volume,
        variant=options.variant,
        seed=seed,
    )
    plain = replace(settings, volume="none")
    boxed, votes = (
        csg_repeated(
            points,
            labels,
            repeats=options.repeats,
            settings=each,
            workspace=max(options.memory // ARRAYS, 2**20),
            progress=progress,
        )
        for each in (settings, plain)
    )
    present = [source.classes[int(label)] for label in np.unique(labels)]
    smaller = (
        reduction(points, labels, settings=plain, tolerance=options.tolerance, progress=progress)
        if options.reduce
        else None
    )
    places = class_map(_similarity(votes))
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
        csg_settings={
            **asdict(settings),
            "repeats": options.repeats,
            "embedding": kind,
            "cached": cached,
            **({"epochs": options.epochs} if "autoencoder" in kind else {}),
            "split": split,
            "images": len(images),
            "image_shape": list(spec.shape),
            "versions": {name: version(name) for name in ("numpy", "scikit-learn")},
        },
        eigenvalues=tuple(np.mean([run.eigenvalues for run in boxed.runs], axis=0).tolist()),
        similarity=tuple(tuple(row) for row in _similarity(boxed).tolist()),
        confused_pairs=_confused(_similarity(votes), present),
        csg_votes=votes.mean,
        csg_votes_interval=votes.interval,
        csg_deviation=boxed.standard_deviation,
        difficulty=difficulties(votes.runs, present),
        class_map={name: (x, y) for name, (x, y) in zip(present, places.tolist(), strict=True)},
        confusing=confusing_images(votes.runs, present, images.paths),
        reduction=smaller,
        subset=_write_subset(images, votes, options, smaller, seed=seed),
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
    source: DataSource, spec: InputSpec, *, seed: int, limit: int | None, progress: Progress
) -> tuple[str, ImageSet]:
    """Return the images that the complexity is measured on, and the name of their split.

    They are loaded as a split `all` of their own: an empty class is a finding here, no error.
    """
    split = "train" if "train" in source.splits else "all"
    chosen = source.splits if split == "all" else {"all": source.splits[split]}
    images = load_split(
        replace(source, splits=chosen),
        "all",
        input=spec,
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


def _embedded(
    images: ImageSet,
    kind: str,
    options: ComplexityOptions,
    *,
    seed: int,
    network: NetworkFeatures | None,
    progress: Progress,
) -> tuple[Points, bool]:
    """Return the embedded images and whether they were found: what is dear is kept by content."""

    def make() -> Points:
        return embed_pixels(
            images.images,
            kind=kind,
            seed=seed,
            features=None if network is None else network.features,
            epochs=options.epochs,
            progress=progress,
        )

    if {name for name, _ in parse(kind)} <= CHEAP:
        return make(), False
    pixels = images.images
    libraries = " ".join(version(name) for name in ("torch", "scikit-learn"))
    weights = "" if network is None else network.digest
    asked = f"{kind} {seed} {options.epochs} {tuple(pixels.shape)} {libraries} {weights}"
    return cached([asked, np.ascontiguousarray(pixels.numpy()).tobytes()], make)


def _write_subset(
    images: ImageSet,
    votes: RepeatedCsg,
    options: ComplexityOptions,
    smaller: Reduction | None,
    *,
    seed: int,
) -> Subset | None:
    if options.subset is None:
        return None
    per_class = options.per_class or (smaller.smallest if smaller else None)
    if per_class is None:
        raise InputError(
            "no smaller set keeps the complexity, so there is none to write"
            if smaller
            else "it is not said how many images of each class the subset has",
            code="NO_SUBSET_SIZE",
            where=options.subset,
            hint="say how many: --per-class 500"
            + ("" if smaller else ", or let --reduce find the number"),
        )
    rows = SUBSET_RULES.get(options.subset_rule)(images.labels.numpy(), votes, per_class, seed)
    target = Path(options.subset)
    write_subset(images, rows.tolist(), target)
    return Subset(target, len(rows), per_class, options.subset_rule)


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
