"""What the draws of a complexity measure say about single classes and images."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from prunecli.report import ClassDifficulty, ConfusingImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.complexity.csg import CsgResult
    from prunecli.complexity.neighbours import Floats, Indices

IMAGES = 5
"""Most confusing images that are named of every class."""


def difficulties(runs: Sequence[CsgResult], names: Sequence[str]) -> tuple[ClassDifficulty, ...]:
    """Return how hard each class is to tell from the others, means over draws.

    `others` is the share of likelihood that falls on other classes (1 - S_ii), `overlap` the sum of
    its similarities with them, `entropy` that of the row of similarities made a distribution, in
    bits: a class that is like many others has a high one.
    """
    likelihood = np.mean([run.likelihood for run in runs], axis=0)
    similarity = np.mean([run.similarity for run in runs], axis=0)
    shares = similarity / similarity.sum(axis=1, keepdims=True)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return tuple(
        ClassDifficulty(
            name,
            others=float(1 - likelihood[at, at]),
            overlap=float(similarity[at].sum() - similarity[at, at]),
            entropy=float(-(shares[at] * logs[at]).sum()),
        )
        for at, name in enumerate(names)
    )


def class_map(similarity: Floats) -> Floats:
    """Return places [K, 2] of classes in a plane, such that similar ones (W [K, K]) are near.

    Metric multidimensional scaling of 1 - W, from the classical solution, so that the map does not
    depend on a draw; turned such that its longer axis lies flat.
    """
    from sklearn.manifold import smacof

    apart = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(apart, 0.0)
    if not apart.any():
        return np.zeros((len(apart), 2))
    found, _ = smacof(
        apart, n_components=2, init=_classical(apart), n_init=1, max_iter=1000, eps=1e-9
    )
    places: Floats = np.asarray(found, np.float64) - found.mean(axis=0)
    _, _, directions = np.linalg.svd(places, full_matrices=False)
    turned = places @ directions.T
    furthest = turned[np.abs(turned).argmax(axis=0), [0, 1]]
    result: Floats = turned * np.where(furthest < 0, -1.0, 1.0)
    return result


def _classical(apart: Floats) -> Floats:
    """Return the classical (Torgerson) solution [K, 2] of a dissimilarity matrix."""
    count = len(apart)
    centring = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-centring @ apart**2 @ centring / 2)
    found = vectors[:, -2:] * np.sqrt(values[-2:].clip(min=0))
    # Where fewer than two directions are left, equal places would leave scaling without a way on.
    apart_a_little: Floats = found + 1e-6 * np.arange(count)[:, None] * np.array([1.0, -1.0])
    return apart_a_little


def confusing_images(
    runs: Sequence[CsgResult], names: Sequence[str], paths: Sequence[str]
) -> tuple[ConfusingImage, ...]:
    """Return, per class, the images whose neighbours are most often of one other class.

    By plain votes; of images with as many, those come first that lie closest to them (the highest
    density of the reference). An image that is drawn more than once counts once.
    """
    found: dict[int, tuple[int, int, float, float]] = {}
    for run in runs:
        votes, densities = run.votes, run.densities
        rows = np.arange(len(votes))
        foreign = votes.copy()
        foreign[rows, run.sample_classes] = 0
        like = foreign.argmax(axis=1)
        for row in np.flatnonzero(foreign.max(axis=1) > 0).tolist():
            found[int(run.samples[row])] = (
                int(run.sample_classes[row]),
                int(like[row]),
                float(foreign[row, like[row]]),
                float(densities[row, like[row]]),
            )
    ranked = sorted(found.items(), key=lambda item: (-item[1][2], -item[1][3], item[0]))
    taken: Counter[int] = Counter()
    chosen: list[tuple[int, int, int, float]] = []
    for position, (own, like_class, share, _) in ranked:
        taken[own] += 1
        if taken[own] <= IMAGES:
            chosen.append((own, position, like_class, share))
    chosen.sort(key=itemgetter(0))
    nearest = neighbours_of_class(
        runs, np.array([row[1] for row in chosen]), np.array([row[2] for row in chosen])
    )
    return tuple(
        ConfusingImage(paths[position], names[own], names[like], share, paths[neighbour])
        for (own, position, like, share), neighbour in zip(chosen, nearest.tolist(), strict=True)
    )


def neighbours_of_class(runs: Sequence[CsgResult], rows: Indices, classes: Indices) -> Indices:
    """Return the nearest neighbour [n] of every one of some drawn samples that is of a class.

    `rows` [n] are rows of the features, `classes` [n] positions in the classes of the runs; every
    sample has such a neighbour in the runs that drew it.
    """
    found = np.full(len(rows), -1, np.int64)
    for run in runs:
        order = np.argsort(run.samples, kind="stable")
        at = np.searchsorted(run.samples, rows, sorter=order).clip(max=len(order) - 1)
        drawn = np.flatnonzero((run.samples[order[at]] == rows) & (found < 0))
        samples = order[at[drawn]]
        first = (run.neighbour_classes[samples] == classes[drawn, None]).argmax(axis=1)
        found[drawn] = run.neighbours[samples, first]
    return found
