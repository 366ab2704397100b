"""How sure accuracies are, from the number of images alone: 95 % intervals."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The normal quantile of a 95 % interval."""


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the interval of a share of which `right` of `count` were seen (Wilson 1927).

    >>> [round(end, 4) for end in wilson(90, 100)]
    [0.8256, 0.9448]
    """
    share, weight = right / count, Z**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def paired_change(lost: int, gained: int, count: int) -> tuple[float, float]:
    """Return the interval of the change of accuracy on the same images (Bonett and Price 2012).

    `lost` images were right before and are wrong now, `gained` the other way round.

    >>> [round(end, 4) for end in paired_change(10, 4, 100)]
    [-0.1348, 0.0172]
    """
    before, after = (lost + 1) / (count + 2), (gained + 1) / (count + 2)
    change = after - before
    half = Z * math.sqrt((before + after - change**2) / (count + 2))
    return max(change - half, -1.0), min(change + half, 1.0)
