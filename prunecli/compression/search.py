"""The search for the smallest model within a drop in accuracy: where to look next.

A strength is how much of the wish is done: 0 leaves the original, 1 goes as far as was asked. The
drop grows with the strength, but is known from a sample of images alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.report import Attempt

FIRST = 10 / 19
"""The strength that is looked at first where nothing is known: half the FLOPs."""

CLOSE = 0.04
"""Strengths that lie as close as this are not told apart: the search is done."""


def next_strength(tried: Sequence[Attempt], *, full: bool) -> float | None:
    """Return the strength to try next; None where the search is done.

    `full` tells whether the strength 1 is worth a try of its own (a budget was given).

    >>> next_strength([], full=True)
    1.0
    """
    if not tried:
        return 1.0 if full else FIRST
    passed = max((one.strength for one in tried if one.ok), default=0.0)
    failed = min((one.strength for one in tried if not one.ok), default=None)
    if failed is None:
        # Nothing failed yet: half of what is left to the end, which a budget has tried already.
        return None if passed >= 1 - CLOSE else (passed + 1) / 2
    if failed - passed <= CLOSE:
        return None
    return _between(tried, passed, failed)


def _between(tried: Sequence[Attempt], passed: float, failed: float) -> float:
    """Return a strength between one that passed and one that failed.

    The line through their drops says where the allowed one lies, held to the middle three quarters
    between them: a drop is a curve and not exactly known. Every other time it is the middle, so
    that a cliff is found as well.
    """
    middle = (passed + failed) / 2
    beyond = next(one for one in tried if one.strength == failed)
    within = next((one for one in tried if one.strength == passed), None)
    low, high = 0.0 if within is None else within.excess, beyond.excess
    if len(tried) % 2 or within is None or low is None or high is None or high <= low:
        return middle
    at = passed + (failed - passed) * (0 - low) / (high - low)
    margin = (failed - passed) / 8
    return min(max(at, passed + margin), failed - margin)


def best(tried: Sequence[Attempt]) -> Attempt:
    """Return the smallest that was within the drop; where none was, the one with the least drop."""
    within = [one for one in tried if one.ok]
    if within:
        return max(within, key=lambda one: one.strength)
    return min(tried, key=lambda one: one.excess or 0.0)
