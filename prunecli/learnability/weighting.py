"""What learnability is good for in training: an order, and chances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_SHARE = 0.3
GROWING = 0.5
"""A curriculum starts with this share of the images, and has all after this share of the epochs.

Both are our reconstruction: the paper only expects curricula to gain from learnability.
"""

FLOOR = 0.1
"""Added to 1 - L, so that no image is never drawn."""


def pace(epoch: float, epochs: int) -> float:
    """Return the share of the images, the easiest first, that epoch `epoch` (from 0) trains on.

    min(1, s + (1 - s) e / E_grow) with s = 0.3 and E_grow half of the epochs.

    >>> [round(pace(epoch, 10), 2) for epoch in (0, 2.5, 5, 9)]
    [0.3, 0.65, 1.0, 1.0]
    """
    return min(1.0, FIRST_SHARE + (1 - FIRST_SHARE) * epoch / (GROWING * epochs))


def curriculum_rows(
    easiness: NDArray[np.float64], labels: NDArray[np.int64], share: float
) -> NDArray[np.int64]:
    """Return the rows, ascending, of the easiest `share` of every class: `easiness` is L [N]."""
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(-easiness[members], kind="stable")]
        chosen.append(order[: max(1, round(share * len(order)))])
    return np.sort(np.concatenate(chosen))


def importance_weights(
    easiness: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the chance p [N] of every image, and its weight 1 / (N p) in the loss.

    p is proportional to 1 - L + 0.1: hard images are drawn more often, and count less each time, so
    that the expected loss is that of all images drawn alike.
    """
    chances = (1 - easiness) + FLOOR
    chances = chances / chances.sum()
    return chances, 1 / (len(chances) * chances)
