"""The smallest kept FLOPs that lose one point, and whether the complexity of data foretells it.

Reads kept_flops.csv and writes kept_flops_least.csv, one row per data set, and
kept_flops_relation.csv, one row per way of foretelling, over all data sets and over those without
noise in their labels: Spearman's correlation with its p-value, and how far a prediction misses (as
a factor) when a data set, or all variants of one, are left out, beside the mean of the others as
prediction. The prediction is linear in the logarithms of both.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from expected_error import HERE, rows_of
from kept_flops import POINTS
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALLOWED = 0.01
"""Accuracy that may be lost."""

NOISE = {point.name: point.noise for point in POINTS}


@dataclass(frozen=True)
class Least:
    """The least that a data set can be cut to; `beyond`: less than the smallest cut tried."""

    point: str
    data: str
    classes: int
    noise: float
    csg: float
    dense_error: float
    least: float
    beyond: int


@dataclass(frozen=True)
class Foretold:
    """How well one figure foretells the least kept FLOPs; misses are mean factors, 1 is exact."""

    over: str
    by: str
    data_sets: int
    spearman: float
    p: float
    left_out: float
    family_left_out: float
    mean_left_out: float
    mean_family_left_out: float


def main() -> None:
    """Write both tables."""
    found = [least_of(list(rows)) for _, rows in
             groupby(rows_of(HERE / "kept_flops.csv"), key=itemgetter("point"))]  # fmt: skip
    clean = [row for row in found if not row.noise]
    relations = [
        foretold(rows, over, by, value)
        for over, rows in (("all", found), ("without noise", clean))
        for by, value in FIGURES.items()
    ]
    for name, rows in (("least", found), ("relation", relations)):
        with (HERE / f"kept_flops_{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(vars(rows[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(vars(row) for row in rows)
        for row in rows:
            print(*vars(row).values(), sep="  ")


def least_of(curve: list[dict[str, str]]) -> Least:
    """Return where a curve of losses, made monotone, passes what is allowed.

    Between two cuts the loss is taken to be linear in the logarithm of what is kept.
    """
    keeps = np.log([float(row["flops"]) for row in curve])
    losses = np.array([float(row["lost"]) for row in curve])
    smooth = IsotonicRegression(increasing=False).fit_transform(keeps, losses)
    first = curve[0]
    over = np.flatnonzero(smooth > ALLOWED)
    # A curve may start above: the dense network itself is pooled with cuts that are worse.
    at = int(over[0]) if len(over) else len(keeps) - 1
    least = keeps[at]
    if len(over) and at:
        share = (ALLOWED - smooth[at - 1]) / (smooth[at] - smooth[at - 1])
        least = keeps[at - 1] + share * (keeps[at] - keeps[at - 1])
    return Least(
        point=first["point"],
        data=first["data"],
        classes=int(first["classes"]),
        noise=NOISE[first["point"]],
        csg=float(first["csg"]),
        dense_error=float(first["error"]),
        least=round(float(np.exp(least)), 3),
        beyond=int(not len(over)),
    )


FIGURES: dict[str, Callable[[Least], float]] = {
    "CSG": lambda row: row.csg,
    "CSG/(K-1)": lambda row: row.csg / (row.classes - 1),
    "error of the dense network": lambda row: row.dense_error,
}


def foretold(
    found: Sequence[Least], over: str, by: str, value: Callable[[Least], float]
) -> Foretold:
    """Return how well one figure foretells the least kept FLOPs, by a line in logarithms."""
    x, y = np.log([value(row) for row in found]), np.log([row.least for row in found])
    rank = spearmanr(x, y)
    alone = np.arange(len(found))
    families = np.unique([row.data for row in found], return_inverse=True)[1]
    misses = [
        float(np.exp(np.abs(_left_out(x if line else None, y, groups)).mean()))
        for line in (True, False)
        for groups in (alone, families)
    ]
    return Foretold(
        over, by, len(found), round(float(rank.statistic), 3), float(f"{rank.pvalue:.1e}"),
        *(round(miss, 2) for miss in misses),
    )  # fmt: skip


def _left_out(x: np.ndarray | None, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return residuals of groups predicted from the others, by a line in x or by their mean."""
    residuals = np.zeros_like(y)
    for group in np.unique(groups):
        out = groups == group
        if x is None:
            residuals[out] = y[out] - y[~out].mean()
        else:
            slope, first = np.polyfit(x[~out], y[~out], 1)
            residuals[out] = y[out] - first - slope * x[out]
    return residuals


if __name__ == "__main__":
    main()
