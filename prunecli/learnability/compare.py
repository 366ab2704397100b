"""How much networks agree on which images are hard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.data import identity
from prunecli.errors import InputError
from prunecli.learnability.record import Record, class_names, learnability

if TYPE_CHECKING:
    from numpy.typing import NDArray

HARDEST = 0.1
"""The share of the images that are the hardest of a network, for the overlap of two."""


@dataclass(frozen=True)
class Agreement:
    """Two records beside each other; a correlation is NaN where one of them does not vary.

    `overlap` is the share of the hardest images that both have in common; `pearson_wrong` leaves
    out the `always_right` images that neither ever had wrong, which most are after a while.
    """

    images: int
    pearson: float
    spearman: float
    overlap: float
    always_right: int
    pearson_wrong: float
    spearman_wrong: float


def agreement(first: Record, second: Record, *, share: float = HARDEST) -> Agreement:
    """Compare two records over the images that both have.

    Pearson and Spearman of L over images (section 5.2 of the notes on the paper: which of both the
    paper gives beside the other is not known). Raises what `common` raises.
    """
    left, right = common(first, second)
    a, b = learnability(first.hits[left]), learnability(second.hits[right])
    wrong = (a < 1) | (b < 1)
    return Agreement(
        images=len(a),
        pearson=correlation(a, b),
        spearman=correlation(ranks(a), ranks(b)),
        overlap=overlap(a, b, share=share),
        always_right=int((~wrong).sum()),
        pearson_wrong=correlation(a[wrong], b[wrong]),
        spearman_wrong=correlation(ranks(a[wrong]), ranks(b[wrong])),
    )


def common(first: Record, second: Record) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of both records that are the same images, in the order of the first.

    Raises `InputError`: `NO_COMMON_IMAGES`, and `OTHER_LABELS` where most of the images that go by
    one name are in another class, as those that go by their number are in another data set.
    """
    place = {identity(path): at for at, path in enumerate(second.paths)}
    found = ((at, place.get(identity(path), -1)) for at, path in enumerate(first.paths))
    pairs = [pair for pair in found if pair[1] >= 0]
    if not pairs:
        raise InputError(
            "the records have no image in common",
            code="NO_COMMON_IMAGES",
            where=f"{first.paths[0] if first.paths else 'empty'} and "
            f"{second.paths[0] if second.paths else 'empty'}",
            hint="compare runs on the same data set, at the same place",
        )
    left, right = np.asarray(pairs, np.int64).T
    moved = int((class_names(first, left) != class_names(second, right)).sum())
    if 2 * moved > len(left):
        raise InputError(
            f"{moved} of {len(left)} images are in another class in the other record",
            code="OTHER_LABELS",
            where=f"{first.paths[left[0]]} and its like",
            hint="compare runs on the same data set",
        )
    return left, right


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return Pearson's correlation; NaN where one side does not vary.

    >>> round(correlation(np.array([1, .75, .5, 0, .5]), np.array([1, 1, .25, .25, .75])), 6)
    0.822425
    """
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, ties at their mean: L has many, since it has T + 1 levels."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), np.float64)


def overlap(first: NDArray[np.float64], second: NDArray[np.float64], *, share: float) -> float:
    """Return the share of the hardest images of one that are among the hardest of the other.

    A tie at the border counts in part, so that the result depends on no order: what two networks
    without any agreement have in common is `share`.
    """
    both = _membership(first, share) * _membership(second, share)
    return float(both.sum() / (share * len(first)))


def _membership(values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return how much [N] each image is among the hardest: 1, 0, or in part at the border."""
    wanted = share * len(values)
    border = np.sort(values)[min(math.ceil(wanted), len(values)) - 1]
    below, tied = values < border, values == border
    found: NDArray[np.float64] = below + tied * ((wanted - below.sum()) / tied.sum())
    return found


def hardest(record: Record, count: int) -> NDArray[np.int64]:
    """Return the rows of the least learnable images, the hardest first; ties in their order."""
    return np.argsort(learnability(record.hits), kind="stable")[:count]


def likely_label_errors(records: list[Record], count: int) -> list[tuple[str, float]]:
    """Return paths with the mean L over networks, the lowest first: look at their labels.

    Only images that no network had right at the last epoch: late ones were learned after all.
    """
    first, *others = records
    total, wrong = learnability(first.hits), ~first.hits[:, -1]
    rows = np.arange(len(first.paths))
    seen = np.ones(len(rows))
    for other in others:
        left, right = common(first, other)
        total[left] += learnability(other.hits[right])
        wrong[left] &= ~other.hits[right, -1]
        seen[left] += 1
    mean = total / seen
    candidates = rows[wrong]
    order = candidates[np.argsort(mean[candidates], kind="stable")][:count]
    return [(first.paths[at], float(mean[at])) for at in order.tolist()]
