"""How long several models take, measured in turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


ENDING = "ExecutionProvider"
OWN = (f"CPU{ENDING}", f"CUDA{ENDING}")
"""What ONNX Runtime runs on a device where nobody asks for anything else."""


@dataclass(frozen=True)
class ModelTiming:
    """The time of one model per batch, in milliseconds.

    `ratio` is its median time over that of the first model, with a 95 % interval; None for the
    first one. `peak_bytes` is the memory that loading and running it adds to a process of its own,
    `joules` the energy of one batch: None where it was not or cannot be measured.
    """

    model: str
    percentiles: Mapping[str, float]
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    peak_bytes: int | None = None
    joules: float | None = None

    @property
    def median(self) -> float:
        """The median time."""
        return self.percentiles["p50"]


@dataclass(frozen=True)
class TimingRow:
    """All models on one device at one batch size: every round ran each of them once, in turn."""

    device: str
    provider: str
    batch: int
    threads: int
    runs: int
    models: tuple[ModelTiming, ...]

    @property
    def where(self) -> str:
        """Device and batch size in words."""
        runtime = "" if self.provider in OWN else f" ({self.provider.removesuffix(ENDING)})"
        return f"{self.device}{runtime} at batch {self.batch}"
