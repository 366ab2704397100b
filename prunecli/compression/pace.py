"""How long a search is going to take, from how fast the original is."""

from __future__ import annotations

import time
from dataclasses import dataclass

STEP = 3.0
"""A step of training costs a forward and a backward pass, which takes twice as long as it."""


@dataclass(frozen=True)
class Pace:
    """`rate` is how many images the original looks at in a second; `images` those of one epoch."""

    rate: float
    images: int

    def epochs(self, count: float, *, share: float = 1.0) -> float:
        """Return the seconds of `count` epochs of a model that keeps a `share`, with a teacher."""
        return count * self.images * (STEP * share + 1) / self.rate

    def fitting(self, count: int, seconds: float) -> int:
        """Return how many of `count` epochs fit into some seconds, about.

        >>> Pace(100.0, 1000).fitting(3, 90), Pace(100.0, 1000).fitting(3, 1e9)
        (2, 3)
        """
        one = self.epochs(1)
        return count if count * one <= seconds else max(0, int(seconds / one))


@dataclass(frozen=True)
class Deadline:
    """When to be done: `minutes` from the `start` (`time.monotonic`); None: never."""

    start: float
    minutes: float | None

    @property
    def left(self) -> float:
        """Return the seconds that are left; infinite without a limit."""
        if self.minutes is None:
            return float("inf")
        return self.start + 60 * self.minutes - time.monotonic()


def minutes_text(seconds: float) -> str:
    """Write how long something takes, about.

    >>> minutes_text(40), minutes_text(130), minutes_text(5400)
    ('under a minute', 'about 3 minutes', 'about 1.5 hours')
    """
    if seconds < 60:
        return "under a minute"
    minutes = -(-seconds // 60)
    return f"about {minutes:.0f} minutes" if minutes < 90 else f"about {seconds / 3600:.1f} hours"
