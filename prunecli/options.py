"""The choices behind every verb, as frozen data without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class LoadOptions:
    """How to read a checkpoint that does not say enough about itself."""

    architecture: str | None = None
    architecture_args: Mapping[str, Any] = field(default_factory=dict)
    input_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    allow_pickle: bool = False


@dataclass(frozen=True)
class IterativeOptions:
    """How removals and updates take turns in `--method iterative`.

    `remove_per_step` channels go after every `updates` mini-batches; None: as many as make about 30
    removals, each of the same fraction of the cost. `lr=None` takes half of the optimiser's own
    rate, which is a peak. `amp`, `schedule` and `ema` are as in `FinetuneOptions`, the schedule
    over all the updates that are planned. `limit` is the number of images that are trained on
    (None: all); `resume` goes on with a run that was stopped.
    """

    remove_per_step: int | None = None
    updates: int = 20
    lr: float | None = None
    optimizer: str = "sgd"
    batch_size: int = 128
    amp: str = "auto"
    schedule: str = "constant"
    ema: float = 0.0
    teacher: Path | None = None
    limit: int | None = None
    resume: bool = False


@dataclass(frozen=True)
class LatencyOptions:
    """What a latency is that of: ONNX Runtime on the CPU with `batch` images at a time.

    `table` is read if it exists, else measured and written there; `threads=None` takes one per
    physical core.
    """

    table: Path | None = None
    batch: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class PruneOptions:
    """How channels are chosen.

    `align` is the number that kept widths are a multiple of (None: chosen per group, see
    `allocation.default_alignment`); `exclude` and `only` are layer patterns (`layer3.*`); `limit`
    is the number of images that a signal which needs data, or a repair, may look at. `repair` names
    what is done after the cut, in order (`prunecli.repair`). `importance` names what allocations by
    importance look at (None: `probe` with images, `energy` without; `prunecli.importance`).
    `granularity` is `channel`, `weight`, or a pattern of weights such as `2:4`. `method` says how
    the cut comes about (`prunecli.verbs.prune`), `iterative` how that one goes, `latency` what
    a budget of milliseconds means. The signal `auto` takes the best of
    `candidates` (some well-known ones, if there are none) on held-out images
    (`prunecli.pruning.search`). `dead` removes dead channels first: those that are
    constant, and with `dead_threshold` those whose replacement by their mean changes the loss by no
    more (`prunecli.dead`).
    """

    signal: str = "l1"
    allocation: str = "uniform"
    aggregate: str = "sum"
    align: int | None = None
    min_width: int = 1
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    seed: int = 0
    limit: int = 1024
    repair: tuple[str, ...] = ()
    method: str = "one-shot"
    iterative: IterativeOptions = field(default_factory=IterativeOptions)
    granularity: str = "channel"
    importance: str | None = None
    latency: LatencyOptions = LatencyOptions()
    candidates: tuple[str, ...] = ()
    dead: bool = False
    dead_threshold: float | None = None


@dataclass(frozen=True)
class ComplexityOptions:
    """How hard a data set is measured to be (`prunecli.complexity`).

    `embedding` None takes a few principal components; `samples` are drawn per class `repeats`
    times, of at most `limit` images; `memory` is the bytes that temporary arrays may take together,
    `device` where neighbours are looked for and an autoencoder is trained (`auto`: a GPU if any).
    At most `survey` images (None: all) are looked at for broken, odd and equal ones.
    `reduce` measures how small the set could be within `tolerance`; `subset` is where a part of it
    is written (a folder, or a list ending in .txt), `per_class` images of every class (None: what
    the reduction found) chosen by `subset_rule`.
    """

    embedding: str | None = None
    epochs: int = 10
    samples: int = 250
    neighbours: int = 3
    volume: str = "box"
    variant: str = "csg"
    repeats: int = 30
    limit: int | None = 10_000
    memory: int = 10**9
    survey: int | None = 100_000
    device: str = "auto"
    reduce: bool = False
    tolerance: float = 0.1
    subset: str | None = None
    subset_rule: str = "random"
    per_class: int | None = None


@dataclass(frozen=True)
class AnalyzeOptions:
    """How much `analyze` looks at.

    `oracle` measures what removing each channel alone does to the loss, and how `signals` (some
    well-known ones, if there are none) rank the channels beside that. `importance` measures every
    importance of the layers, and how much they agree. `learnability` are records of training runs
    (`prunecli.learnability`) that are compared. `dead_threshold` adds
    channels to the dead ones as in `PruneOptions`.
    """

    signal: str = "l1"
    signals: tuple[str, ...] = ()
    oracle: bool = False
    aggregate: str = "sum"
    seed: int = 0
    limit: int = 256
    sensitivity: bool = True
    dead_threshold: float | None = None
    complexity: ComplexityOptions = field(default_factory=ComplexityOptions)
    importance: bool = False
    learnability: tuple[Path, ...] = ()


@dataclass(frozen=True)
class FinetuneOptions:
    """How a network is trained; `lr=None` takes the optimiser's own default.

    With a `sparsity`, weights are zeroed along the way: from what the network has at the start,
    by `sparsity_schedule`, every `sparsity_every` steps over the first `sparsity_until` of them.
    `record_learnability` looks at every training image after every epoch, or, in the mode
    `training`, takes what was right as it was trained on (`prunecli.learnability`).
    `curriculum` and `importance_sampling` are such records: what is trained on follows their mean,
    with as many updates as without (`prunecli.training.sampling`).
    """

    epochs: int = 3
    lr: float | None = None
    optimizer: str = "sgd"
    schedule: str = "one-cycle"
    batch_size: int = 128
    weight_decay: float = 5e-4
    momentum: float = 0.9
    temperature: float = 4.0
    alpha: float = 0.9
    amp: str = "auto"
    ema: float = 0.0
    augment: str = "auto"
    label_smoothing: float = 0.0
    clip: float = 0.0
    held_out: float = 0.1
    limit: int | None = None
    seed: int = 0
    granularity: str = "weight"
    sparsity: float | None = None
    sparsity_schedule: str = "cubic"
    sparsity_every: int = 100
    sparsity_until: float = 0.6
    allocation: str = "uniform"
    record_learnability: bool = False
    record_learnability_mode: str = "evaluation"
    curriculum: tuple[Path, ...] = ()
    importance_sampling: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ExportOptions:
    """What `export` writes and what it times; `threads=None` takes one per physical core."""

    opset: int | None = None
    devices: tuple[str, ...] = ("cpu",)
    batches: tuple[int, ...] = (1, 8)
    threads: int | None = None
    runs: int = 100
    benchmark: bool = True
    tolerance: float = 1e-4
    seed: int = 0
