"""What the complexity of a data set is measured on: some of its images, as points."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from prunecli.architectures.reference import InputSpec
from prunecli.complexity.devices import device_named
from prunecli.complexity.embedding import Features, Points, embed_pixels, parse
from prunecli.data import Arrays, load_split
from prunecli.data.cache import cached
from prunecli.data.load import MEMORY_LIMIT
from prunecli.data.source import name_of, names_of
from prunecli.data.splits import choose
from prunecli.errors import InputError
from prunecli.progress import Progress, silent
from prunecli.wording import counted, some, verb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from prunecli.data import DataSource, ImageSet
    from prunecli.data.survey.survey import Survey
    from prunecli.options import ComplexityOptions

COMPONENTS = 5
"""Principal components that pixels are embedded in: with more, the volumes of a few samples in
dense places decide the score (effective sample size below 10 of 250 on MNIST and CIFAR-10)."""

LONGEST_SIDE = 64
"""Larger images are shrunk to this for the complexity measure, which sees coarse looks only."""

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


@dataclass(frozen=True, eq=False)
class Seen:
    """Points [n, d] with labels [n], what each is called, and how they came about.

    `shape` is that of an image, or of a row of features; `cached` says whether the embedding was
    found ready.
    """

    points: NDArray[np.floating]
    labels: NDArray[np.int64]
    paths: Sequence[str]
    split: str
    shape: tuple[int, ...]
    embedding: str
    cached: bool
    warnings: tuple[str, ...]


def see(
    source: DataSource,
    found: Survey | None,
    *,
    options: ComplexityOptions,
    seed: int,
    network: NetworkFeatures | None = None,
    progress: Progress = silent,
) -> Seen:
    """Return at most `options.limit` training images as points, or all where none is set apart.

    `found` is the survey of the images; a table of features has none, and is taken as it is.
    """
    split = "train" if "train" in source.splits else "all"
    chosen = source.splits if split == "all" else {"all": source.splits[split]}
    # A split `all` of its own: an empty class is a finding here, no error.
    part = replace(source, splits=chosen)
    if found is None:
        return _features(part, split, options, seed=seed)
    spec = _common_input(found) if network is None else network.input
    limit, crowded = _that_fit(part, spec, options)
    images = load_split(part, "all", input=spec, seed=seed, limit=limit, progress=progress)
    kind = options.embedding or _embedding(images)
    told: list[str] = []
    points, ready = _embedded(
        images, kind, options, seed=seed, network=network, say=told.append, progress=progress
    )
    return Seen(
        points,
        images.labels.numpy(),
        images.paths,
        split,
        spec.shape,
        kind,
        ready,
        (*crowded, *told, *images.warnings),
    )


def _that_fit(
    source: DataSource, spec: InputSpec, options: ComplexityOptions
) -> tuple[int | None, tuple[str, ...]]:
    """Return how many images are decoded at once at most, and a warning where it is not all asked.

    Pixels and their float32 copy take five bytes each.
    """
    room = max(options.memory, MEMORY_LIMIT) // (5 * math.prod(spec.shape))
    there = sum(len(raw) for raw in source.splits.values())
    if min(there, options.limit or there) <= room:
        return options.limit, ()
    note = (
        f"{room:,} of {there:,} images fit into {max(options.memory, MEMORY_LIMIT) / 1e9:.1f} GB: "
        "the complexity is that of these; --memory raises it"
    )
    return room, (note,)


def _features(source: DataSource, split: str, options: ComplexityOptions, *, seed: int) -> Seen:
    rows = choose(source, "all", seed=seed, limit=options.limit)
    assert isinstance(rows, Arrays)
    if options.embedding not in {None, "features"}:
        raise InputError(
            f"the data set holds features, which the embedding {options.embedding!r} does not take",
            code="BAD_EMBEDDING",
            hint="leave --embedding out: features are measured as they are",
        )
    _check_finite(source, rows)
    shape = rows.images.shape[1:]
    return Seen(rows.images, rows.labels, names_of(rows), split, shape, "features", False, ())


def _check_finite(source: DataSource, rows: Arrays) -> None:
    finite = np.isfinite(rows.images)
    if finite.all():
        return
    broken = np.flatnonzero(~finite.all(axis=1))
    raise InputError(
        f"{counted(int((~finite).sum()), 'value')} in {len(broken):,} of {len(rows):,} rows "
        f"{verb(int((~finite).sum()), 'is', 'are')} NaN or infinite: "
        f"{some([name_of(rows, at) for at in broken.tolist()])}",
        code="BAD_FEATURES",
        where=str(source.path),
        hint="leave these rows out: keep = np.isfinite(x).all(axis=1); x[keep], y[keep]",
    )


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
    say: Callable[[str], None],
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
            device=device_named(options.device),
            progress=progress,
        )

    if {name for name, _ in parse(kind)} <= CHEAP:
        return make(), False
    pixels = images.images
    libraries = " ".join(version(name) for name in ("prunecli", "torch", "scikit-learn"))
    weights = "" if network is None else f"{network.digest} {network.input}"
    asked = f"{kind} {seed} {options.epochs} {tuple(pixels.shape)} {libraries} {weights}"
    return cached([asked, np.ascontiguousarray(pixels.numpy()).tobytes()], make, say=say)
