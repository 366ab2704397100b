"""What scoring, training and exporting report, and the history of a model through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.report.cuts import SparsityReport
    from prunecli.report.measured import AccuracyChange, BenchmarkRow, Parity
    from prunecli.report.networks import CutCost, Verified


@dataclass(frozen=True)
class EpochReport:
    """One epoch: losses, held-out accuracy, learning rate at its end, images per second.

    `sparsity` is the share of zeroed weights at its end, where some are kept at zero.
    """

    epoch: int
    train_loss: float
    accuracy: float
    loss: float
    learning_rate: float
    images_per_second: float
    seconds: float
    sparsity: float | None = None


@dataclass(frozen=True)
class RunStep:
    """One step in the history of a model, as recorded in its file; None for what is not.

    `verb` is `prune`, `finetune` or `export`, and empty where that is not known. `cost` and
    `budget` are those of pruning (`sparsity`: where weights were zeroed), `chosen` says by what.
    `accuracy` is that before and after the step, `teacher` that of the teacher on the same images.
    """

    verb: str
    command: str
    input: str
    cost: CutCost | None = None
    budget: Mapping[str, Mapping[str, float]] | None = None
    chosen: str | None = None
    sparsity: float | None = None
    verified: Verified | None = None
    accuracy: AccuracyChange | None = None
    teacher: float | None = None
    epochs: int | None = None
    best_epoch: int | None = None


@dataclass(frozen=True)
class SamplingReport:
    """How learnability decided what was trained on: from `records`, for `images` images.

    `unknown` of them are in no record. `shares` are the parts of the images that the epochs of a
    curriculum used; `weights` the lowest and the highest in the loss, where they differ.
    """

    kind: str
    records: tuple[Path, ...]
    images: int
    unknown: int
    shares: tuple[float, ...] = ()
    weights: tuple[float, float] | None = None


@dataclass(frozen=True)
class FinetuneReport:
    """The outcome of `finetune`: the best epoch is chosen on images held out from training.

    `teacher` is the accuracy of the teacher on the images of `accuracy`, where there is one.
    `history` has the steps of the model up to here.
    """

    output: Path
    accuracy: AccuracyChange
    held_out: AccuracyChange
    epochs: tuple[EpochReport, ...]
    best_epoch: int
    log: Path | None
    seconds: float
    warnings: tuple[str, ...] = ()
    sparsity: SparsityReport | None = None
    record: Path | None = None
    architecture: str = ""
    teacher: float | None = None
    history: tuple[RunStep, ...] = ()
    pictures: tuple[Path, ...] = ()
    page: Path | None = None
    sampling: SamplingReport | None = None


@dataclass(frozen=True)
class ExportReport:
    """The outcome of `export`; `history` has the steps of the model up to here."""

    output: Path
    opset: int
    bytes: int
    parity: Parity
    benchmark: tuple[BenchmarkRow, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    architecture: str = ""
    history: tuple[RunStep, ...] = ()
    pictures: tuple[Path, ...] = ()
    page: Path | None = None
