"""How long work reports where it stands, without knowing about screens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One report of progress: `done` of `total` (None: unknown) within a named stage."""

    stage: str
    done: int
    total: int | None = None
    facts: Mapping[str, float | str] = field(default_factory=dict)


Progress = Callable[[Step], None]


def silent(_: Step) -> None:
    """Report to nobody: the default in the library."""


@dataclass
class Clock:
    """Seconds by stage, and the stage reported as progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        self.progress(Step(name, 0))
        start = time.perf_counter()
        try:
            yield
        finally:
            # A stage may run twice: a cut in module mode that fails is followed by graph mode.
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.seconds[name] = round(spent, 4)
