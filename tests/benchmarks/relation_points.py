"""The data sets behind the expected error: digits, MNIST, CIFAR-10, and variants of them.

A variant keeps some of the classes, some images of each, or draws some labels anew. All choices are
seeded by the variant itself, so that every script that names one means the same images. Of MNIST
there are the 10,000 test images alone: the first 8,000 are trained on, the others tested on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from prunecli import data
from prunecli.architectures.reference import InputSpec
from prunecli.data import Arrays, DataSource

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("PRUNECLI_SHARED", REPOSITORY.parent / "shared"))
CACHE = Path(os.environ.get("PRUNECLI_CACHE", "~/.cache/prunecli-data")).expanduser()


@dataclass(frozen=True)
class Point:
    """One variant: the classes that stay, images of each (None: all), share of labels drawn anew.

    A label that is drawn anew is any of the classes, its own included. `seeds` are those of the
    training; the images and the labels are the same for all of them.
    """

    family: str
    classes: tuple[int, ...]
    per_class: int | None = None
    noise: float = 0.0
    seeds: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """What the variant is called in the tables."""
        classes = "all" if len(self.classes) == 10 else "".join(map(str, self.classes))
        size = "" if self.per_class is None else f", {self.per_class} each"
        noise = "" if not self.noise else f", {round(100 * self.noise)} % noise"
        return f"{self.family} {classes}{size}{noise}"


ALL = tuple(range(10))


def points() -> tuple[Point, ...]:
    """Return all variants, in turn from the three data sets, so that any beginning is a mixture."""
    by_family = {"digits": _digits(), "MNIST": _mnist(), "CIFAR-10": _cifar()}
    turns: list[tuple[float, Point]] = []
    for listed in by_family.values():
        turns.extend((at / len(listed), point) for at, point in enumerate(listed))
    return tuple(point for _, point in sorted(turns, key=lambda turn: turn[0]))


def _cifar() -> list[Point]:
    # airplane 0, automobile 1, bird 2, cat 3, deer 4, dog 5, frog 6, horse 7, ship 8, truck 9
    subsets = [
        (3, 5), (2, 3, 4, 5, 6, 7), (0, 1, 8, 9), (1, 9), (3, 4, 5), (0, 2, 4, 6, 8), (0, 6),
        (0, 1, 2, 3, 4, 5, 6, 7), (4, 7), (2, 3, 5, 6), (1, 3, 5, 7, 9), (0, 1, 6, 7, 8, 9),
        (0, 1, 2, 3, 4, 5, 6, 8, 9), (1, 6, 8), (0, 1, 3, 5, 7, 8, 9), (2, 6), (0, 2, 8),
        (1, 2, 3, 4, 5, 6, 7, 8, 9), (0, 2, 3, 4, 5, 6, 7),
    ]  # fmt: skip
    chosen = [Point("CIFAR-10", classes) for classes in subsets]
    noisy = [
        Point("CIFAR-10", ALL, noise=0.25),
        Point("CIFAR-10", (0, 2, 4, 6, 8), noise=0.5),
        Point("CIFAR-10", (1, 9), noise=0.25),
        Point("CIFAR-10", ALL, noise=0.5),
        Point("CIFAR-10", ALL, noise=0.1),
    ]
    small = [
        Point("CIFAR-10", ALL, 500, seeds=(0, 1)),
        Point("CIFAR-10", ALL, 100),
        Point("CIFAR-10", (3, 4, 5), 250),
        Point("CIFAR-10", ALL, 1000),
        Point("CIFAR-10", (0, 1, 8, 9), 250),
        Point("CIFAR-10", ALL, 250),
        Point("CIFAR-10", ALL, 2500),
    ]
    whole = [Point("CIFAR-10", ALL, seeds=(0, 1))]
    return whole + _alternate(chosen, [*_alternate(noisy, small)])


def _mnist() -> list[Point]:
    return [
        Point("MNIST", ALL, seeds=(0, 1)),
        Point("MNIST", ALL, noise=0.25),
        Point("MNIST", (4, 9)),
        Point("MNIST", ALL, 100),
        Point("MNIST", (3, 5, 8)),
        Point("MNIST", ALL, 20),
        Point("MNIST", ALL, noise=0.5),
        Point("MNIST", (1, 2, 4, 7, 9)),
        Point("MNIST", ALL, 300),
        Point("MNIST", (0, 1, 3, 5, 6, 7, 9)),
        Point("MNIST", ALL, noise=0.1),
        Point("MNIST", ALL, 50),
        Point("MNIST", (3, 5), noise=0.25),
    ]


def _digits() -> list[Point]:
    return [
        Point("digits", ALL, seeds=(0, 1)),
        Point("digits", ALL, noise=0.25),
        Point("digits", ALL, 20),
        Point("digits", (1, 8)),
        Point("digits", ALL, noise=0.5),
        Point("digits", (3, 5, 8, 9)),
        Point("digits", ALL, 50),
        Point("digits", ALL, noise=0.1),
        Point("digits", (0, 1, 4, 6, 7, 8)),
        Point("digits", (3, 8, 9), noise=0.25),
    ]


def _alternate(first: list[Point], second: list[Point]) -> list[Point]:
    """Return both lists spread evenly into each other."""
    turns = [
        (at / len(listed), point) for listed in (first, second) for at, point in enumerate(listed)
    ]
    return [point for _, point in sorted(turns, key=lambda turn: turn[0])]


@dataclass(frozen=True, eq=False)
class Variant:
    """A point with its images: a data set with `train` and `test`, as `analyze` takes one.

    The labels of `test` carry the noise of the point too, drawn on their own: the held-out images
    of somebody's data come from where the others do. `clean_labels` [n] are those of `test` before.
    `spare` are training images that a `per_class` leaves out, with the noise.
    """

    source: DataSource
    clean_labels: np.ndarray
    spare: Arrays


@cache
def _whole(family: str) -> dict[str, Arrays]:
    place, side, channels = {
        "digits": ("digits", 8, 1),
        "MNIST": (str(SHARED / "data" / "mnist"), 28, 1),
        "CIFAR-10": (str(CACHE), 32, 3),
    }[family]
    spec = InputSpec(
        channels=channels, height=side, width=side, mean=(0.0,) * channels, std=(1.0,) * channels
    )
    source = data.open_source(place)
    splits = {}
    for split, raw in source.splits.items():
        images = data.load_split(
            DataSource(source.path, source.format, source.classes, {"all": raw}), "all", input=spec
        )
        splits[split] = Arrays(images.images.numpy(), images.labels.numpy())
    return splits


def variant(point: Point) -> Variant:
    """Return the images of a point."""
    random = np.random.default_rng([ord(letter) for letter in point.name])
    whole = _whole(point.family)
    train, spare = _chosen(whole["train"], point.classes, point.per_class, random)
    test, _ = _chosen(whole["test"], point.classes, None, random)
    noisy = {name: _with_noise(part, point, random) for name, part in
             (("train", train), ("test", test))}  # fmt: skip
    names = tuple(str(label) for label in point.classes)
    source = DataSource(Path(point.name), "variant", names, noisy)
    return Variant(source, test.labels, _with_noise(spare, point, random))


def _chosen(
    whole: Arrays, classes: tuple[int, ...], per_class: int | None, random: np.random.Generator
) -> tuple[Arrays, Arrays]:
    """Return some images of every class, shuffled, and the others of these classes."""
    kept, others = [], []
    for label in classes:
        members = random.permutation(np.flatnonzero(whole.labels == label))
        cut = len(members) if per_class is None else per_class
        kept.append(members[:cut])
        others.append(members[cut:])
    parts = []
    for rows in (random.permutation(np.concatenate(kept)), np.concatenate(others)):
        labels = np.searchsorted(np.array(classes), whole.labels[rows])
        parts.append(Arrays(whole.images[rows], labels.astype(np.int64)))
    return parts[0], parts[1]


def _with_noise(part: Arrays, point: Point, random: np.random.Generator) -> Arrays:
    drawn = random.random(len(part)) < point.noise
    anew = random.integers(0, len(point.classes), len(part))
    return Arrays(part.images, np.where(drawn, anew, part.labels))
