"""What `compress` reports: before and after, what was wished for, and what was tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.report.measured import ACCURACY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.report.measured import BenchmarkRow, Parity
    from prunecli.report.networks import Verified


@dataclass(frozen=True)
class ModelFigures:
    """A model in figures: `bytes` are those of its tensors, or of the file that holds it.

    `latency_ms` is measured in ONNX Runtime, `accuracy` on images that chose nothing; None is what
    was not measured.
    """

    flops: float
    params: float
    bytes: int
    latency_ms: float | None = None
    accuracy: float | None = None

    def amount(self, kind: str) -> float:
        """Return a cost by its kind."""
        return {"flops": self.flops, "params": self.params, "bytes": float(self.bytes)}[kind]


@dataclass(frozen=True)
class Wish:
    """One wish: what was `asked` and what was `got` (None: not measured), and whether that is met.

    Speed-ups are factors, drops are parts of 1, latencies milliseconds. The texts are for people.
    """

    wish: str
    asked: float
    got: float | None
    ok: bool
    asked_text: str = ""
    got_text: str = ""


@dataclass(frozen=True)
class Attempt:
    """One model that was tried.

    `strength` says how far it goes towards what was wished for (1: all of it), `kept` are the
    shares of the original's costs. `accuracy`, `drop` and its 95 % interval are those on the images
    that choose; `excess` is by how much the drop is too large. None is what was not measured.
    """

    strength: float
    budget: str
    file: str
    kept: Mapping[str, float]
    bytes: int
    epochs: int
    seconds: float
    ok: bool
    speedup: float | None = None
    accuracy: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    excess: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CompressReport:
    """The outcome of `compress`.

    `chosen_on` and `reported_on` say which images chose the model and which its accuracy is told
    on; empty without images. `measure` is what the accuracies are: without labels the agreement
    with the original, of masks the mean IoU. `choice` says why the winner won, `commands` do by
    hand what was done.
    """

    output: Path
    onnx: Path
    before: ModelFigures
    after: ModelFigures
    met: tuple[Wish, ...]
    tried: tuple[Attempt, ...]
    seconds: float
    architecture: str
    verified: Verified
    parity: Parity
    benchmark: tuple[BenchmarkRow, ...]
    choice: str
    commands: tuple[str, ...]
    drop: tuple[float, float, float] | None = None
    chosen_on: str = ""
    reported_on: str = ""
    page: Path | None = None
    warnings: tuple[str, ...] = ()
    measure: str = ACCURACY

    @property
    def ok(self) -> bool:
        """Whether every wish is met."""
        return all(wish.ok for wish in self.met)
