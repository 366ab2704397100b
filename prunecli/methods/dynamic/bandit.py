"""Which channels to execute: the combinatorial upper confidence bound, as pure functions.

Source: Chen, Wang, Yuan 2013, "Combinatorial Multi-Armed Bandit" (CUCB), as Spasov, Lio 2019
(arXiv 1905.06435) take it for the channels of a layer. Of the latter the abstract alone is known to
us: warm start, scaling and ties are our own reconstruction.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Counts = NDArray[np.int64]
Chosen = NDArray[np.int64]

EXPLORE = 1.5
"""The factor in the confidence radius of CUCB: `sqrt(3 ln t / (2 T))`."""


def confidence_bounds(means: Values, counts: Counts, step: int, *, explore: float) -> Values:
    """Return `mu + sqrt(explore ln t / T)` of every channel at step `t`, counted from 1.

    `means` are rewards in [0, 1], `counts` how many of each there were; without any the bound is
    infinite.

    >>> bounds = confidence_bounds(
    ...     np.array([0.5, 0.4, 0.45, 0.1]), np.array([10, 2, 8, 1]), 21, explore=EXPLORE)
    >>> bounds.round(6).tolist()
    [1.17578, 1.91109, 1.205545, 2.237003]
    """
    radius = np.sqrt(explore * math.log(step) / np.maximum(counts, 1))
    return np.asarray(np.where(counts > 0, means + radius, np.inf))


def top(values: Values, count: int) -> Chosen:
    """Return the positions of the largest values, ascending; ties go to the lowest position.

    >>> top(np.array([0.2, 0.9, 0.2, 0.2]), 3).tolist()
    [0, 1, 2]
    """
    return np.sort(np.argsort(-values, kind="stable")[:count])


def warm_sets(order: NDArray[np.int64], count: int) -> tuple[Chosen, ...]:
    """Return sets of `count` channels that have every channel of `order` in one of them.

    They are disjoint but for the last one, which the first channels of the order fill up.

    >>> [chosen.tolist() for chosen in warm_sets(np.array([4, 1, 0, 2, 3]), 2)]
    [[1, 4], [0, 2], [3, 4]]
    """
    filled = np.concatenate([order, order[: -len(order) % count]])
    return tuple(np.sort(chosen) for chosen in filled.reshape(-1, count))


def scaled(rewards: Values) -> Values | None:
    """Return rewards over their largest, in [0, 1]; None where they say nothing.

    They say nothing where all are zero, and where one of them is no number (an overflow in fp16).
    Rewards of another scale would make the confidence radius explore too little, or too much.

    >>> scaled(np.array([1.0, 4.0, 0.0])).tolist()
    [0.25, 1.0, 0.0]
    """
    largest = float(rewards.max(initial=0.0))
    if not np.isfinite(rewards).all() or largest <= 0:
        return None
    return rewards / largest


def learn_(
    means: Values, counts: Counts, chosen: Chosen, rewards: Values, *, decay: float = 0.0
) -> None:
    """Take in the rewards of the chosen channels, in place.

    The mean is that over all rewards, `mu += (r - mu) / T`; with a `decay` it forgets old ones,
    `mu = decay mu + (1 - decay) r`, the first reward apart, because rewards drift as weights train.
    """
    counts[chosen] += 1
    weight = 1 / counts[chosen]
    if decay:
        weight = np.maximum(weight == 1, 1 - decay)
    means[chosen] += (rewards - means[chosen]) * weight
