"""How the sparsity grows over a run: from what it is to what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prunecli.registry import Registry

SparsitySchedule = Callable[[float], float]
"""From the share of the pruning phase that is over to the share of the way that is gone."""

SPARSITY_SCHEDULES: Registry[SparsitySchedule] = Registry("sparsity schedule")


@SPARSITY_SCHEDULES.register(
    "cubic",
    summary="Fast at first, when many weights can go, and slower towards the end (default).",
    source="Zhu, Gupta 2017, arXiv 1710.01878",
)
def cubic(done: float) -> float:
    """Return `1 - (1 - done)^3`."""
    return 1 - (1 - done) ** 3


@SPARSITY_SCHEDULES.register("linear", summary="The same share of the weights every time.")
def linear(done: float) -> float:
    """Return `done`."""
    return done


@SPARSITY_SCHEDULES.register("at-once", summary="Everything before the first step.")
def at_once(_done: float) -> float:
    """Return 1."""
    return 1.0


@dataclass(frozen=True)
class Gradual:
    """Sparsity from `initial` to `final` over the steps 0 to `end`, changed every `every` steps."""

    initial: float
    final: float
    end: int
    every: int
    schedule: SparsitySchedule = cubic

    def sparsity(self, step: int) -> float:
        """Return the sparsity at a step.

        >>> [round(Gradual(0, 0.9, 1000, 100).sparsity(t), 6) for t in (0, 100, 500, 2000)]
        [0.0, 0.2439, 0.7875, 0.9]
        """
        done = min(max(step / self.end, 0.0), 1.0) if self.end else 1.0
        return self.final + (self.initial - self.final) * (1 - self.schedule(done))

    def changes(self, step: int) -> bool:
        """Tell whether the masks are made anew before a step."""
        return step == self.end or (step < self.end and step % self.every == 0)
