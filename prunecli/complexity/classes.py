"""What the draws of a complexity measure say about single classes and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.report import ClassDifficulty, ConfusingImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.complexity.estimates import CsgResult, RepeatedCsg
    from prunecli.complexity.neighbours import Floats, Indices

IMAGES = 5
"""Most confusing images that are named of every class."""


def difficulties(repeated: RepeatedCsg, names: Sequence[str]) -> tuple[ClassDifficulty, ...]:
    """Return how hard each class is to tell from the others, means over draws.

    `others` is the share of likelihood that falls on other classes (1 - S_ii), `overlap` the sum of
    its similarities with them, `entropy` that of the row of similarities made a distribution, in
    bits: a class that is like many others has a high one.
    """
    likelihood, similarity = repeated.likelihood, repeated.similarity
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
    seen = [_foreign(run) for run in runs]
    samples, own, like, share, volumes = (
        np.concatenate(column) for column in zip(*seen, strict=True)
    )
    _, once = np.unique(samples, return_index=True)
    order = once[np.lexsort((samples[once], volumes[once], -share[once], own[once]))]
    place = np.arange(len(order)) - np.searchsorted(own[order], own[order])
    chosen = order[place < IMAGES]
    nearest = neighbours_of_class(runs, samples[chosen], like[chosen])
    return tuple(
        ConfusingImage(
            paths[samples[at]], names[own[at]], names[like[at]], float(share[at]), paths[neighbour]
        )
        for at, neighbour in zip(chosen.tolist(), nearest.tolist(), strict=True)
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


def _foreign(run: CsgResult) -> tuple[Indices, Indices, Indices, Floats, Floats]:
    """Return the samples [f] that have neighbours of other classes, and what they are taken for.

    After the samples: their classes, the commonest other class, its share of the neighbours, and
    the log volumes. Counted by pairs that occur, not in a table [m, K].
    """
    own, others, classes = run.sample_classes, run.neighbour_classes, len(run.classes)
    pairs = (np.arange(len(own))[:, None] * classes + others)[others != own[:, None]]
    codes, counts = np.unique(pairs, return_counts=True)
    rows, taken_for = np.divmod(codes, classes)
    order = np.lexsort((taken_for, -counts, rows))
    rows, first = np.unique(rows[order], return_index=True)
    best = order[first]
    share = counts[best] / others.shape[1]
    return run.samples[rows], own[rows], taken_for[best], share, run.log_volumes[rows]
