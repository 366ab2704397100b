"""How far arrays are from what they are expected to be, input by input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def relative_errors(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return per input `max|actual - expected| / max|expected|`; infinite where not comparable.

    Infinities have to be the same ones.

    >>> relative_errors(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    array([0.5])
    """
    if actual.shape != expected.shape:
        return np.array([np.inf])
    difference = largest_difference(actual, expected)
    second = np.abs(expected.reshape(len(expected), -1).astype(np.float64))
    largest = np.where(np.isfinite(second), second, 0.0).max(axis=1, initial=0.0)
    scale = np.maximum(largest, np.finfo(np.float64).tiny)
    return np.where(difference == 0, 0.0, difference / scale)


def largest_difference(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return per input the largest difference; infinite where one is no number."""
    first, second = (
        value.reshape(len(value), -1).astype(np.float64) for value in (actual, expected)
    )
    with np.errstate(invalid="ignore"):
        difference = np.where(first == second, 0.0, np.abs(first - second))
    largest: NDArray[np.float64] = np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(
        axis=1, initial=0.0
    )
    return largest
