"""What is removed as a whole: channels, single weights, or weights by a pattern such as 2:4."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prunecli.errors import InputError

CHANNEL = "channel"
WEIGHT = "weight"

LARGEST_GROUP = 64
"""Weights in a group of a pattern at most: beyond, single weights are as good."""

_PATTERN = re.compile(r"^([0-9]{1,3}):([0-9]{1,3})$")


@dataclass(frozen=True)
class Pattern:
    """In every group of `of` weights along a layer's inputs, `keep` stay."""

    keep: int
    of: int

    @property
    def sparsity(self) -> float:
        """The share of the weights that goes."""
        return 1.0 - self.keep / self.of

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}"


def parse_pattern(granularity: str) -> Pattern | None:
    """Return the pattern of `n:m`, or None for `channel` and `weight`.

    Raises `InputError` (`BAD_GRANULARITY`) for anything else.

    >>> parse_pattern("2:4")
    Pattern(keep=2, of=4)
    """
    if granularity in {CHANNEL, WEIGHT}:
        return None
    match = _PATTERN.match(granularity)
    pattern = Pattern(int(match[1]), int(match[2])) if match else None
    if pattern is None or not 0 < pattern.keep < pattern.of <= LARGEST_GROUP:
        raise InputError(
            f"unknown granularity {granularity!r}",
            code="BAD_GRANULARITY",
            hint="give channel, weight, or a pattern: 2:4 keeps 2 of every 4 weights "
            f"(groups of {LARGEST_GROUP} at most)",
        )
    return pattern
