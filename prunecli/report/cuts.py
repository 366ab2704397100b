"""What pruning reports: costs, verification, repairs, dead channels, zeroed weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.report.measured import AccuracyChange, BenchmarkRow, Preparation, TeacherReport
    from prunecli.report.networks import (
        CutCost,
        FrozenReport,
        GroupReport,
        LayerCut,
        TrainingMode,
        Verified,
    )
    from prunecli.report.searches import Score, SearchReport


@dataclass(frozen=True)
class RepairStep:
    """Loss and accuracy after one step: `dense`, `cut`, or a repair that changed `layers`.

    `skipped` says why layers could not be repaired, with counts. A layer with large maps is
    repaired on fewer images than fit into memory later in the network: `fewest` is the least such
    number.
    """

    name: str
    loss: float
    accuracy: float
    seconds: float = 0.0
    layers: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    fewest: int | None = None


@dataclass(frozen=True)
class RepairReport:
    """What repair did: `images` are those it used, `measured` says which ones were scored.

    `measured` is `held_out`, or `calibration` for the images of the repair itself.
    """

    steps: tuple[RepairStep, ...]
    images: int
    measured: str


@dataclass(frozen=True)
class LayerSparsity:
    """The weights of one layer and how many are kept; `reason` says why none is pruned."""

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    reason: str = ""


@dataclass(frozen=True)
class SparsityReport:
    """Zeroed weights: `sparsity` is the share removed of the `weights` of all listed layers.

    `point` is what the signal stands for on single weights (`random` for itself). `bytes_before`
    and `bytes_after` are the sizes of the file that was read and of the one that was written.
    """

    granularity: str
    point: str
    weights: int
    kept: int
    sparsity: float
    layers: tuple[LayerSparsity, ...]
    bytes_before: int | None = None
    bytes_after: int | None = None


@dataclass(frozen=True)
class RemovalReport:
    """One pruning step of an iterative run, and the training updates before it.

    `loss` and `accuracy` are those on held-out images after the updates, `flops` and `params` the
    shares kept after the step. `max_rel_error` is that of the verification of this step, on the
    weights of its time.
    """

    removal: int
    updates: int
    channels: int
    flops: float
    params: float
    train_loss: float
    loss: float
    accuracy: float
    seconds_per_update: float
    max_rel_error: float


@dataclass(frozen=True)
class IterativeReport:
    """What iterative pruning did; for a dry run, what it would do.

    `accuracy` and `loss` are on `images` held-out images: of the original model, and of the result.
    `criterion` says where the signal was taken; `seconds_per_update` is that of the first round and
    of the last, `precision` that of the passes of training. Where several processes trained
    together, `shares` are the images that each had in the last round.
    """

    planned_removals: int
    planned_updates: int
    planned_seconds: float
    criterion: str
    removals: tuple[RemovalReport, ...] = ()
    accuracy: AccuracyChange | None = None
    loss: tuple[float, float] | None = None
    images: int = 0
    seconds_per_update: tuple[float, float] | None = None
    log: Path | None = None
    precision: str = "fp32"
    shares: tuple[int, ...] = ()


SEARCH, TRAIN = "search", "train"
"""Phases of a course: while channels are chosen, and after the rest of them was cut."""


@dataclass(frozen=True)
class CoursePoint:
    """Where a method that learns what to prune stood after `updates` updates.

    `budget`, `expected` and `cost` are shares of the cost that the budget names: what it had come
    down to, what gates were expected to keep, and what those that were open kept. `alive` channels
    were left, `flips` gates had opened or closed since the point before; `widths` are those of the
    channel groups. The others are those of the epoch that ends here, None within one: `loss` and
    `accuracy` on held-out images.
    """

    updates: int
    epoch: float
    phase: str
    budget: float
    expected: float
    cost: float
    alive: int
    flips: int
    widths: Mapping[str, int]
    train_loss: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class LearningReport:
    """What a method that trains did; for a dry run, what it would do.

    `search_epochs` of `epochs` were spent on choosing among `gates` channels; 0 where they were
    chosen at once. `ungated` says why channel groups had no gates; `accuracy` and `loss` are on
    `images` held-out images: of the original model (chosen at once: of the pruned one), and of the
    result, which is that of `best_epoch`. `kept` is the share of the cost that the budget names
    first, `taught_by` the teacher. Where several processes trained together, `shares` are the
    images that each had in the last epoch.
    """

    method: str
    epochs: int
    search_epochs: float
    gates: int
    ungated: Mapping[str, str] = field(default_factory=dict)
    kept: float | None = None
    accuracy: AccuracyChange | None = None
    loss: tuple[float, float] | None = None
    images: int = 0
    best_epoch: int | None = None
    max_rel_error: float | None = None
    course: tuple[CoursePoint, ...] = ()
    log: Path | None = None
    precision: str = "fp32"
    taught_by: TeacherReport | None = None
    shares: tuple[int, ...] = ()

    @property
    def before(self) -> str:
        """What the first of two figures is that of."""
        return "original model" if self.search_epochs else "before training"

    @property
    def searched(self) -> tuple[CoursePoint, ...]:
        """The points of the search; none where channels were chosen at once."""
        return tuple(point for point in self.course if point.phase == SEARCH)

    @property
    def scored(self) -> tuple[CoursePoint, ...]:
        """The points that were scored on held-out images: one per epoch, in order."""
        return tuple(point for point in self.course if point.accuracy is not None)


@dataclass(frozen=True)
class LatencyReport:
    """Milliseconds per batch of `batch` images in ONNX Runtime on this machine's CPU.

    `dense_ms` and `slim_ms`, of the original and the pruned model, are predicted from the table;
    `kept` is the share kept. `measured` has both models timed (None for a dry run),
    `measured_kept` is the share measured, with a 95 % interval, and `error` how far the predicted
    share is off, relative to it. `asked` is the budget, and `met` whether it was met when measured.
    """

    batch: int
    threads: int
    dense_ms: float
    slim_ms: float
    kept: float
    table: Path | None = None
    measured: BenchmarkRow | None = None
    measured_kept: float | None = None
    measured_interval: tuple[float, float] | None = None
    error: float | None = None
    asked: float | None = None
    met: bool | None = None


@dataclass(frozen=True)
class DeadGroup:
    """The dead channels of one group, by their indices.

    `constant` are the same for all images, `unread` those of which all reading weights are zero,
    `below` those whose mean replacement penalty is within the threshold. `stays` says why some of
    them are kept; `flops_share` is the share of the model's FLOPs of the others.
    """

    name: str
    width: int
    constant: tuple[int, ...]
    unread: tuple[int, ...]
    below: tuple[int, ...]
    stays: Mapping[str, str]
    flops_share: float

    @property
    def dead(self) -> int:
        """The number of dead channels."""
        return len(self.constant) + len(self.unread) + len(self.below)


@dataclass(frozen=True)
class DeadScores:
    """Loss and accuracy before and after dead channels are removed; see `RepairReport`."""

    loss_before: float
    loss_after: float
    accuracy_before: float
    accuracy_after: float
    images: int
    measured: str


@dataclass(frozen=True)
class DeadReport:
    """Dead channels: of `channels` in all, `removable` can be removed.

    `images` is how many were used (0: the weights alone), `not_looked_at` counts the channels
    whose constants cannot be moved, by reason, and `borders` is the largest error that a constant
    leaves at zero padding, by the layer in whose output it is.
    """

    groups: tuple[DeadGroup, ...]
    channels: int
    removable: int
    not_looked_at: Mapping[str, int]
    images: int = 0
    threshold: float | None = None
    borders: Mapping[str, float] = field(default_factory=dict)
    scores: DeadScores | None = None


@dataclass(frozen=True)
class ChoiceReport:
    """What a model was pruned by beside signal and allocation, and why those were taken.

    `why` is about the signal, the allocation and the `repair`: `named`, or which default it was;
    empty where a method brings its own.
    """

    method: str
    why_method: str
    repair: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class BlockReport:
    """A residual block: its layers, and the shares of the model's costs that go with it alone."""

    name: str
    layers: tuple[str, ...]
    flops_share: float
    params_share: float


@dataclass(frozen=True)
class WriterReport:
    """What writes into a stream, and how many of the `slots` that are left of it."""

    name: str
    written: int
    slots: int


GATES = "gates"
"""What decided about blocks in a search with gates on what they write."""


@dataclass(frozen=True)
class BlockTrial:
    """The model pruned to the budget without `deleted`; `score` is that after the repair.

    Where pruning failed `problem` says why, and there is no score.
    """

    deleted: tuple[str, ...]
    score: Score | None
    problem: str = ""


@dataclass(frozen=True)
class BlocksReport:
    """Which of the `found` residual blocks were deleted.

    `measured` says what decided: `held_out` or `calibration` images, of which there are `images`
    and `trials` on them; `widths`, the channels that the budget leaves of a block; or `gates`, with
    `writers` as those that write a part of what is left of their stream.
    """

    deleted: tuple[BlockReport, ...]
    found: int
    measured: str
    trials: tuple[BlockTrial, ...] = ()
    images: int = 0
    seconds: float = 0.0
    writers: tuple[WriterReport, ...] = ()


@dataclass(frozen=True)
class PruneReport:
    """The outcome of `prune`; `output` and `verified` are None for a dry run.

    `verified` is about the pruned model before a repair, which changes its weights. `importance`
    names the importance of layers that the allocation used, if it did. `sparsity` is set where
    weights were zeroed and no channel was removed; then `cost.after` counts weights that are not
    zero (`params`) and the bytes that they and their places take, and the FLOPs are those of the
    dense kernels that run the model. `candidates` is what `--signal auto` chose from, `dead` the
    dead channels that were found, `blocks` which residual blocks were deleted.
    `choice` says why it was pruned by what it was. `training` is what `verified` is, of training
    mode; None where nothing was cut. `classifier` tells whether the model gives a row of scores for
    each image, so that labels may say how good it is.
    """

    output: Path | None
    plan: Mapping[str, Any]
    cost: CutCost
    verified: Verified | None
    groups: tuple[GroupReport, ...]
    frozen: tuple[FrozenReport, ...]
    architecture: str
    mode: str
    signal: str
    allocation: str
    align: str
    seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    repair: RepairReport | None = None
    importance: str | None = None
    sparsity: SparsityReport | None = None
    iterative: IterativeReport | None = None
    learning: LearningReport | None = None
    latency: LatencyReport | None = None
    candidates: SearchReport | None = None
    dead: DeadReport | None = None
    blocks: BlocksReport | None = None
    layers: tuple[LayerCut, ...] = ()
    pictures: tuple[Path, ...] = ()
    page: Path | None = None
    choice: ChoiceReport | None = None
    training: TrainingMode | None = None
    preparation: Preparation | None = None
    classifier: bool = True
