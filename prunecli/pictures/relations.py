"""How the error of a small network follows the complexity of data, and where this data set is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import QUIET, entitle_, explain_, look_of, new_figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from prunecli.report import ExpectedError, FittedPoint, Relation

X: dict[str, Callable[[float, int], float]] = {
    "CSG": lambda score, _: score,
    "CSG/(K-1)": lambda score, classes: score / (classes - 1),
}
Y: dict[str, Callable[[float, int], float]] = {
    "error": lambda error, _: error,
    "error/(1-1/K)": lambda error, classes: error / (1 - 1 / classes),
}
WORDS = {
    "CSG": "CSG",
    "CSG/(K-1)": "CSG/(K-1): 0 no overlap, 1 identical classes",
    "error": "test error (%)",
    "error/(1-1/K)": "test error, % of random guessing",
}

ONE_ROW = 5
"""Entries of the legend that fit side by side."""


def relation_picture(
    relation: Relation,
    expected: ExpectedError | None = None,
    *,
    classes: int | None = None,
    narrow: bool = False,
) -> Picture:
    """Draw the error against the complexity with the fit, and beside it predicted and measured.

    A prediction there comes from a fit without any variant of the same data, as it does for data
    that was never seen. `expected` marks a data set of `classes` classes.
    """
    figure, (left, right) = new_figure(9.0, 3.2 if narrow else 4.4, columns=2, narrow=narrow)
    names = [point.data for point in relation.points]
    for name in dict.fromkeys(names):
        points = [point for point in relation.points if point.data == name]
        colour, marker = look_of(names, name)
        places = [_place(relation, p.csg, p.error, p.classes) for p in points]
        beside = [(100 * p.foretold, 100 * p.error) for p in points]
        for axes, drawn in ((left, places), (right, beside)):
            axes.plot(
                *zip(*drawn, strict=True), color=colour, marker=marker, markersize=5,
                linestyle="none", alpha=0.8, label=name,
            )  # fmt: skip
    _lines_(left, relation)
    right.axline((0, 0), slope=1, color=QUIET, linewidth=1.0, linestyle="--")
    _mark_(left, right, relation, expected, classes)
    left.set_xlabel(WORDS[relation.predictor])
    left.set_ylabel(WORDS[relation.predicted])
    left.set_title(f"The fit: r = {relation.r:.2f}, {_probability(relation.p)}", loc="left")
    right.set_xlabel("predicted without variants of the data (%)")
    right.set_ylabel("measured test error (%)")
    right.set_title("Predicted and measured", loc="left")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
    title = "Error of a small model against the complexity of the data"
    through = f"{relation.embedding}, volume {relation.volume}, {len(names)} data sets"
    entitle_(figure, f"{title}: {through}", narrow=narrow)
    looks = left.get_legend_handles_labels()
    count = len(looks[1])
    most = count if count <= ONE_ROW else -(-count // 2)
    explain_(figure, looks, most=most, narrow=narrow)
    return Picture(figure, title, _description(relation, expected))


def _place(relation: Relation, score: float, error: float, classes: int) -> tuple[float, float]:
    x = X[relation.predictor](score, classes)
    return x, 100 * Y[relation.predicted](error, classes)


def _lines_(axes: Axes, relation: Relation) -> None:
    """Draw the fit: one line, or one for few and one for many images of a class."""
    first, slope, *size = relation.coefficients
    places = [X[relation.predictor](p.csg, p.classes) for p in relation.points]
    x = np.linspace(min(places), max(places), 50)
    images = [point.images_per_class for point in relation.points]
    drawn = {"-": (max(images), "fit, {:.0f} images per class")} if size else {"-": (1.0, "fit")}
    if size:
        drawn["--"] = (min(images), "fit, {:.0f} images per class")
    for stroke, (count, label) in drawn.items():
        y = first + slope * x + sum(each * np.log10(count) for each in size)
        axes.plot(
            x, 100 * y.clip(0), color="black", linewidth=1.2, linestyle=stroke,
            label=label.format(count),
        )  # fmt: skip


def _mark_(
    left: Axes,
    right: Axes,
    relation: Relation,
    expected: ExpectedError | None,
    classes: int | None,
) -> None:
    if expected is None or expected.error is None or expected.csg is None or classes is None:
        return
    assert expected.interval is not None
    x, y = _place(relation, expected.csg, expected.error, classes)
    ends = [_place(relation, expected.csg, end, classes)[1] for end in expected.interval]
    left.errorbar(
        [x], [y], [[y - ends[0]], [ends[1] - y]], color="black", marker="*", markersize=12,
        capsize=4, linestyle="none", label="this data set, 95 %", zorder=5,
    )  # fmt: skip
    right.axvline(100 * expected.error, color="black", linewidth=0.8, linestyle=":")


def _probability(p: float) -> str:
    return "p < 1e-10" if p < 1e-10 else f"p = {p:.1g}"


def _description(relation: Relation, expected: ExpectedError | None) -> str:
    by_name: dict[str, list[FittedPoint]] = {}
    for point in relation.points:
        by_name.setdefault(point.data, []).append(point)
    sets = [
        f"{len(points)} of {name}, errors {100 * min(p.error for p in points):.1f} to "
        f"{100 * max(p.error for p in points):.1f} %"
        for name, points in by_name.items()
    ]
    mark = ""
    if expected is not None and expected.error is not None and expected.interval is not None:
        low, high = expected.interval
        mark = (
            f" This data set: {100 * expected.error:.0f} %, {100 * low:.0f} to {100 * high:.0f} %."
        )
    return (
        f"Test error against complexity over {len(relation.points)} data sets: {'; '.join(sets)}. "
        f"r = {relation.r:.2f}; a data set left out is missed by "
        f"{100 * relation.left_out:.1f} points on average.{mark}"
    )
