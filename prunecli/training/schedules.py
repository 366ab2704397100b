"""Learning rates over the steps of a run, as closed forms: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from prunecli.registry import Registry

Schedule: TypeAlias = Callable[[int, int], float]
"""(step, steps in all) -> factor on the peak learning rate; steps count from 0."""

SCHEDULES: Registry[Schedule] = Registry("schedule")

RISE = 0.3
START = 1 / 25
END = START / 1e4


@SCHEDULES.register(
    "one-cycle",
    summary="Up along a cosine over the first 30 % of the steps, then down to almost nothing.",
    source="Smith, Topin 2018, arXiv 1708.07120; the constants of torch's OneCycleLR",
)
def one_cycle(step: int, steps: int) -> float:
    """Return torch's `OneCycleLR` factor with its default constants.

    >>> [round(one_cycle(step, 11), 3) for step in (0, 2, 6, 10)]
    [0.04, 0.96, 0.531, 0.0]
    """
    top = max(RISE * steps - 1, 0.0)
    if step <= top:
        return _cosine(START, 1.0, step / top if top else 1.0)
    return _cosine(1.0, END, (step - top) / max(steps - 1 - top, 1.0))


@SCHEDULES.register(
    "cosine",
    summary="From the peak down to zero along half a cosine.",
    source="Loshchilov, Hutter 2017, arXiv 1608.03983",
)
def cosine(step: int, steps: int) -> float:
    """Return half a cosine from 1 to 0."""
    return _cosine(1.0, 0.0, step / steps)


@SCHEDULES.register("linear", summary="From the peak down to zero along a line.")
def linear(step: int, steps: int) -> float:
    """Return a line from 1 to 0."""
    return 1 - step / steps


@SCHEDULES.register("step", summary="A tenth after half of the steps, a hundredth after 3/4.")
def staircase(step: int, steps: int) -> float:
    """Return 1, then 0.1, then 0.01."""
    return 0.1 ** ((2 * step >= steps) + (4 * step >= 3 * steps))


@SCHEDULES.register("constant", summary="The same learning rate throughout.")
def constant(_step: int, _steps: int) -> float:
    """Return 1."""
    return 1.0


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
