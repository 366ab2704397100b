"""What the complexity of a data set means: a scale with data sets on it that people know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.pictures.datasets import WIDTH
from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, INK, QUIET, new_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.report import DatasetAnalysis

CLASSES = 10
"""Classes of every data set in `KNOWN`."""

MEASURED: Mapping[str, object] = {"samples": 250, "neighbours": 3, "variant": "csg"}
"""Settings behind every score in `KNOWN`: the defaults of `analyze`."""

KNOWN: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("raw", "box"): {"digits": 0.04, "MNIST": 0.14, "CIFAR-10": 3.64},
    ("pca-5", "box"): {"digits": 0.31, "MNIST": 0.77, "CIFAR-10": 5.13},
    ("pca-5", "none"): {"digits": 0.38, "MNIST": 0.76, "CIFAR-10": 5.29},
    ("pca-32", "box"): {"digits": 0.07, "MNIST": 0.20, "CIFAR-10": 1.33},
    ("pca-32", "none"): {"digits": 0.07, "MNIST": 0.15, "CIFAR-10": 4.11},
}
"""Measured scores by embedding and volume, the easiest data set first.

The pca rows are the whole data sets of tests/benchmarks/expected_error_csg.csv, the raw row is from
tests/benchmarks/csg.csv.
"""

NEAR = 0.1
"""Scores that differ by this share are close: draws of images differ by as much."""

HALF_HEIGHT = 0.14
"""Of the bar of the scale, in a picture that is 1 high to both sides."""


@dataclass(frozen=True)
class Scale:
    """A score between 0 (no classes overlap) and `highest` (all classes are identical).

    `known` are the scores of other data sets. `measure` is the CSG where this data set has as many
    classes as they have, and else CSG/(K-1), which does not grow with the number K of classes.
    """

    score: float
    highest: float
    known: Mapping[str, float]
    measure: str = "CSG"


def scale_of(dataset: DatasetAnalysis) -> Scale | None:
    """Return the scale of a data set's score; None where no known score was measured its way."""
    settings = {"variant": "csg", **dataset.csg_settings}
    known = KNOWN.get((str(settings["embedding"]), str(settings["volume"])))
    classes = len(dataset.difficulty)
    if known is None or classes < 2 or any(settings[k] != v for k, v in MEASURED.items()):
        return None
    if classes == CLASSES:
        return Scale(dataset.csg, CLASSES - 1.0, known)
    shares = {name: value / (CLASSES - 1) for name, value in known.items()}
    return Scale(dataset.csg / (classes - 1), 1.0, shares, "CSG/(K-1)")


def scale_text(scale: Scale) -> str:
    """Say between which known data sets a score lies.

    >>> scale_text(Scale(2.9, 9.0, {"MNIST": 0.77, "CIFAR-10": 5.13}))
    'A CSG of 2.90 lies between MNIST (0.77) and CIFAR-10 (5.13).'
    """
    told = {name: f"{name} ({value:.2f})" for name, value in scale.known.items()}
    near = [told[name] for name, value in scale.known.items() if _is_near(value, scale.score)]
    below = [told[name] for name, value in scale.known.items() if value <= scale.score][-1:]
    above = [told[name] for name, value in scale.known.items() if value > scale.score][:1]
    if near:
        place = f"close to {near[-1]}"
    elif below and above:
        place = f"between {below[0]} and {above[0]}"
    else:
        place = f"above {below[0]}" if below else f"below {above[0]}"
    return f"A {scale.measure} of {scale.score:.2f} lies {place}."


def _is_near(one: float, other: float) -> bool:
    return abs(one - other) <= NEAR * max(one, other)


def scale_picture(scale: Scale, *, narrow: bool = False) -> Picture:
    """Draw a score on its scale: known data sets below the line, this one above it."""
    figure, (axes,) = new_figure(2 * WIDTH, 1.25, narrow=narrow)
    top = max(scale.highest, scale.score)
    axes.barh(0, top, height=2 * HALF_HEIGHT, color=QUIET, alpha=0.18)
    for at, (known, value) in enumerate(sorted(scale.known.items(), key=lambda item: item[1])):
        axes.plot([value] * 2, [-HALF_HEIGHT, HALF_HEIGHT], color=COLOURS[0], linewidth=2)
        # Every other name is lower: easy data sets have scores close to each other.
        axes.annotate(
            f"{known} {value:.2f}", (value, -HALF_HEIGHT), (0, -4 - 11 * (at % 2)),
            textcoords="offset points", ha=_side(value / top), va="top", fontsize=8.5,
            color=COLOURS[0],
        )  # fmt: skip
    axes.plot(
        [scale.score], [0.0], marker="D", markersize=7, color=COLOURS[1], linestyle="none", zorder=5
    )
    axes.annotate(
        f"this data set {scale.score:.2f}", (scale.score, HALF_HEIGHT), (0, 5),
        textcoords="offset points", ha=_side(scale.score / top), va="bottom", fontsize=9,
        color=COLOURS[1], weight="bold",
    )  # fmt: skip
    axes.set_xlim(0, top)
    axes.set_ylim(-1, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(axis="x", colors=INK)
    axes.set_xlabel(f"{scale.measure} (0: no overlap, {scale.highest:g}: identical classes)")
    listed = ", ".join(f"{known} {value:.2f}" for known, value in scale.known.items())
    words = f"{scale_text(scale)} On a scale from 0 to {scale.highest:g}: {listed}."
    return Picture(figure, "What the score means", words)


def _side(share: float) -> str:
    """Return how a word is aligned at a place on the scale, so that it stays inside."""
    return "left" if share < 0.15 else "right" if share > 0.85 else "center"
