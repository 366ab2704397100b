"""What scoring, training and exporting report, and the history of a model through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from prunecli.report.conversion import Conversion
    from prunecli.report.cuts import SparsityReport
    from prunecli.report.measured import (
        AccuracyChange,
        BenchmarkRow,
        OutputAgreement,
        Parity,
        Preparation,
        TeacherReport,
    )
    from prunecli.report.networks import CutCost, Verified

BESIDE: Mapping[str, bool] = {"beside": True}
"""Marks a mapping whose entries stand beside the fields of its report in JSON."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch: losses, held-out accuracy, learning rate at its end, images per second.

    `facts` are what a method of pruning says at its end, under names of its own, which stand beside
    the other fields in JSON and in logs; `sparsity` is the share of zeroed weights, where some are
    kept at zero. `precision` is that of the forward and backward passes. Where several processes
    trained together, `shares` are the images of each, and images per second those of all.
    """

    epoch: int
    train_loss: float
    accuracy: float
    loss: float
    learning_rate: float
    images_per_second: float
    seconds: float
    precision: str = "fp32"
    facts: Mapping[str, float] = field(default_factory=dict, metadata=BESIDE)
    shares: tuple[int, ...] = ()

    @property
    def sparsity(self) -> float | None:
        """The share of zeroed weights; None where none are held at zero."""
        return self.facts.get("sparsity")


SHARES = ("sparsity", "FLOPs", "budget", "expected", "cost")
"""Facts that are parts of a whole: they are shown in per cent."""

COUNTS = ("removals", "alive", "flips", "beyond")
"""Facts that count something: they are shown as whole numbers."""


def fact_names(epochs: Sequence[EpochReport]) -> tuple[str, ...]:
    """Return the facts that any epoch has, in the order of the first one that has them."""
    return tuple(dict.fromkeys(name for epoch in epochs for name in epoch.facts))


def fact_text(epoch: EpochReport, name: str) -> str:
    """Write a fact of an epoch; nothing where the epoch does not have it."""
    value = epoch.facts.get(name)
    if value is None:
        return ""
    if name in SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.0f}" if name in COUNTS else f"{value:.4g}"


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


def best_epoch_text(best: int | None, epochs: int) -> str:
    """Say which epoch was kept, of how many.

    >>> best_epoch_text(3, 10), best_epoch_text(0, 10)
    ('3 of 10', 'none of 10: the weights before training')
    """
    return f"{best} of {epochs}" if best else f"none of {epochs}: the weights before training"


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
class ImitatedOutput:
    """An output, or a layer's features, that a training made follow a teacher's.

    `loss` says by which loss and where that is from; empty where nothing was made to follow, for
    the reason that `kind` gives.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    loss: str


@dataclass(frozen=True)
class FinetuneReport:
    """The outcome of `finetune`: the best epoch is chosen on images held out from training.

    Epoch 0 is the model before training, which is kept where no epoch is better. `stopped_early`
    tells that training ended before its last epoch because none was better for long.
    `augmentation` is what was done to images, in torchvision's words.
    `teacher` is the accuracy of the teacher on the images of `accuracy`, where there is one, and
    `taught_by` says who that is.
    Without labels `accuracy` is the agreement with the teacher, as its `measure` says; `imitated`
    are the outputs that follow it, and `outputs` how far each does in the end, on those images.
    `history` has the steps of the model up to here. `threads` are those that a training on a
    processor took: with another number of them the weights come out a little different.
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
    precision: str = "fp32"
    taught_by: TeacherReport | None = None
    threads: int | None = None
    preparation: Preparation | None = None
    stopped_early: bool = False
    imitated: tuple[ImitatedOutput, ...] = ()
    outputs: tuple[OutputAgreement, ...] = ()
    augmentation: str = ""


@dataclass(frozen=True)
class ExportReport:
    """The outcome of `export`; `history` has the steps of the model up to here.

    `format` is what people call the file's format; `opset` is None where that is not ONNX.
    `conversion` is there for another precision than float: `parity` is then that of the float file
    that it was made of.
    """

    output: Path
    opset: int | None
    bytes: int
    parity: Parity
    benchmark: tuple[BenchmarkRow, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    architecture: str = ""
    history: tuple[RunStep, ...] = ()
    pictures: tuple[Path, ...] = ()
    page: Path | None = None
    format: str = "ONNX"
    conversion: Conversion | None = None
