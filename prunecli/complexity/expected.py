"""The error that a small network is to be expected to have, from what others of its kind had.

What it was fitted on lies beside this file as data, with how it came about; the fit is made anew
when it is asked for, from some dozens of points.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.complexity.relation import FORMS, Fit, Floats, Setups, fit
from prunecli.data import labels_of
from prunecli.report import ExpectedError, FittedPoint, Relation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.complexity.estimates import CsgSettings
    from prunecli.complexity.points import Seen
    from prunecli.data import DataSource

DATA = Path(__file__).with_name("relation.json")

ROUNDING = 1e-3
"""What a figure may lie outside of the fitted ones, which are kept with few digits."""


@dataclass(frozen=True)
class Asked:
    """A data set with the settings that its complexity was measured by.

    `images` is the number of those to train on, `seen` of those that the score looked at; `balance`
    is the smallest class over the largest, `shape` that of an image as it was looked at.
    """

    embedding: str
    samples: float
    neighbours: int
    variant: str
    classes: int
    images: int
    seen: int
    balance: float
    shape: tuple[int, ...]


def expect(
    source: DataSource, seen: Seen, settings: CsgSettings, scores: Mapping[str, float]
) -> ExpectedError:
    """Return the error to expect on a data set, from its complexities by volume."""
    parts = [raw for name, raw in source.splits.items() if seen.split in {name, "all"}]
    counts = np.bincount(np.concatenate([labels_of(raw) for raw in parts]))
    present = counts[counts > 0]
    asked = Asked(
        embedding=seen.embedding,
        samples=settings.samples,
        neighbours=settings.neighbours,
        variant=settings.variant,
        classes=len(present),
        images=int(present.sum()),
        seen=len(seen.labels),
        balance=float(present.min() / present.max()),
        shape=seen.shape,
    )
    return expected_error(asked, scores)


def expected_error(asked: Asked, scores: Mapping[str, float]) -> ExpectedError:
    """Return the error to expect and its interval, or why nothing can be said.

    `scores` are complexities by the word for their volume; the one is taken whose relation misses
    least. Nothing is said of data outside the range of what was fitted on, in any respect, nor for
    settings that were not.
    """
    known = _read()
    fitted = [
        each for each in known["settings"] if _matches(each, asked) and each["volume"] in scores
    ]
    if not fitted:
        return ExpectedError(None, None, (_unfitted(known, asked),), None)
    fits = [(each, fit(each["form"], *measured_of(known, each))) for each in fitted]
    settings, found = min(fits, key=lambda pair: pair[1].half_interval())
    score = scores[settings["volume"]]
    relation = relation_of(known, settings, found)
    outside = _outside(known, settings, asked, score)
    if outside:
        return ExpectedError(None, None, outside, relation)
    setups = Setups.of([(score, asked.classes, asked.images / asked.classes)])
    error = float(found.predict(setups)[0])
    half = found.half_interval()
    return ExpectedError(
        error, (max(error - half, 0.0), min(error + half, 1.0)), (), relation, score
    )


@cache
def _read() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return known


def _matches(settings: Mapping[str, Any], asked: Asked) -> bool:
    names = ("embedding", "samples", "neighbours", "variant")
    return all(settings[name] == getattr(asked, name) for name in names)


def _unfitted(known: Mapping[str, Any], asked: Asked) -> str:
    ways = sorted({each["embedding"] for each in known["settings"]})
    first = known["settings"][0]
    return (
        f"no relation was fitted for {asked.embedding}, {asked.samples} samples, "
        f"{asked.neighbours} neighbours, {asked.variant}; there is one for {' and '.join(ways)}, "
        f"{first['samples']} samples, {first['neighbours']} neighbours, {first['variant']}"
    )


def _key(settings: Mapping[str, Any]) -> str:
    return f"{settings['embedding']} {settings['volume']}"


def measured_of(
    known: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Setups, Floats, list[str]]:
    """Return the data sets, errors [n] and families that one way of measuring is fitted on."""
    points = known["points"]
    rows = [
        (each["scores"][_key(settings)], each["classes"], each["images"] / each["classes"])
        for each in points
    ]
    errors = np.array([each["error"] for each in points])
    return Setups.of(rows), errors, [each["data"] for each in points]


def _outside(
    known: Mapping[str, Any], settings: Mapping[str, Any], asked: Asked, score: float
) -> tuple[str, ...]:
    """Return in what respects a data set lies outside of what was fitted on, with the ranges."""
    points = known["points"]
    side = max(asked.shape[1:], default=0)
    looked_at = {
        "CSG": (score, [each["scores"][_key(settings)] for each in points]),
        "classes": (asked.classes, [each["classes"] for each in points]),
        "training images per class": (
            asked.images / asked.classes,
            [each["images"] / each["classes"] for each in points],
        ),
        "balance of classes": (asked.balance, [each["balance"] for each in points] + [1.0]),
        "pixels of the longer side": (side, [each["side"] for each in points]),
    }
    outside = [
        f"{name} {_number(value)}, fitted on {_number(min(fitted))} to {_number(max(fitted))}"
        for name, (value, fitted) in looked_at.items()
        if not min(fitted) - ROUNDING <= value <= max(fitted) + ROUNDING
    ]
    # Unreadable images are few; a limit of the caller's is not.
    expected = min(asked.images, known["images_seen"])
    if not 0.95 * expected <= asked.seen <= known["images_seen"]:
        outside.append(
            f"a score from {asked.seen} images, fitted on scores from all training images, "
            f"{known['images_seen']} at most"
        )
    return tuple(outside)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def relation_of(known: Mapping[str, Any], settings: Mapping[str, Any], found: Fit) -> Relation:
    """Return what is reported of a fit to one way of measuring, with its points."""
    form = FORMS.get(found.form)
    foretold = found.errors - found.family_left_out
    points = tuple(
        FittedPoint(
            name=each["name"],
            data=each["data"],
            classes=each["classes"],
            images_per_class=each["images"] / each["classes"],
            csg=each["scores"][_key(settings)],
            error=each["error"],
            foretold=guess,
        )
        for each, guess in zip(known["points"], foretold.tolist(), strict=True)
    )
    misses = np.abs(found.family_left_out)
    families = np.array(found.families)
    return Relation(
        embedding=settings["embedding"],
        volume=settings["volume"],
        predicted=form.predicted,
        predictor=form.predictor,
        coefficients=found.coefficients,
        r=found.r,
        p=found.p,
        left_out=float(np.abs(found.left_out).mean()),
        families_left_out={
            name: float(misses[families == name].mean()) for name in dict.fromkeys(found.families)
        },
        network=known["network"],
        training=known["training"],
        points=points,
    )
