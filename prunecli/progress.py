"""How long work reports where it stands, without knowing about screens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
