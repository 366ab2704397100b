"""From a matrix of class similarities to the numbers that say how hard the classes are to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from prunecli.complexity.neighbours import Floats
from prunecli.registry import Registry

Score: TypeAlias = Callable[[Floats], float]

SCORES: Registry[Score] = Registry("complexity score")


def class_similarity(likelihood: Floats) -> Floats:
    """Return W [K, K] from the row-stochastic S [K, K]: W_ij = sum_c min(S_ic, S_jc).

    This is one minus the Bray-Curtis distance of the rows that the reference implementation
    computes, in a form that is exact, symmetric and never NaN.
    """
    similarity = np.empty_like(likelihood)
    for at, row in enumerate(likelihood):
        similarity[at, at:] = np.minimum(row, likelihood[at:]).sum(axis=1)
        similarity[at:, at] = similarity[at, at:]
    return similarity


def laplacian_spectrum(similarity: Floats) -> Floats:
    """Return the eigenvalues [K], ascending from zero, of the unnormalised Laplacian D - W.

    >>> laplacian_spectrum(np.array([[1.0, 0.3], [0.3, 1.0]])).round(6).tolist()
    [0.0, 0.6]
    """
    weights = (similarity + similarity.T) / 2
    np.fill_diagonal(weights, 0.0)
    eigenvalues = np.linalg.eigvalsh(np.diag(weights.sum(axis=1)) - weights)
    return np.asarray(eigenvalues.clip(min=0.0), dtype=np.float64)


@SCORES.register(
    "csg",
    summary="Cumulative spectral gradient: running maxima of the normalised eigengaps, summed.",
    source="Branchaud-Charron, Achkar, Jodoin, CVPR 2019",
)
def spectral_gradient(eigenvalues: Floats) -> float:
    """Return the CSG of a spectrum [K]: 0 for separated classes, K - 1 for identical ones.

    >>> round(spectral_gradient(np.array([0.0, 1.0, 1.0, 1.0])), 6)
    0.75
    """
    return _cumulated(np.diff(eigenvalues))


@SCORES.register(
    "auls",
    summary="The same sum over the area under the Laplacian spectrum.",
    source="Li et al. 2022 (cmsAULS)",
)
def spectral_area(eigenvalues: Floats) -> float:
    """Return cmsAULS of a spectrum [K], which weighs large eigenvalues more than the CSG does."""
    return _cumulated(np.diff(eigenvalues**2) / 2)


def _cumulated(gaps: Floats) -> float:
    divisors = np.arange(len(gaps) + 1, 1, -1)
    return float(np.maximum.accumulate(gaps / divisors).sum())
