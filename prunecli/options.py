"""The choices behind every verb, as frozen data without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


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
class PruneOptions:
    """How channels are chosen.

    `align` is the number that kept widths are a multiple of (None: chosen per group, see
    `allocation.default_alignment`); `exclude` and `only` are layer patterns (`layer3.*`); `limit`
    is the number of images that a signal which needs data, or a repair, may look at. `repair` names
    what is done after the cut, in order (`prunecli.repair`).
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


@dataclass(frozen=True)
class ComplexityOptions:
    """How hard a data set is measured to be (`prunecli.complexity`).

    `embedding` None takes a few principal components; `samples` are drawn per class `repeats`
    times, of at most `limit` images; `memory` is the bytes that temporary arrays may take together.
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
    reduce: bool = False
    tolerance: float = 0.1
    subset: str | None = None
    subset_rule: str = "random"
    per_class: int | None = None


@dataclass(frozen=True)
class AnalyzeOptions:
    """How much `analyze` looks at.

    `oracle` measures what removing each channel alone does to the loss, and how `signals` (some
    well-known ones, if there are none) rank the channels beside that.
    """

    signal: str = "l1"
    signals: tuple[str, ...] = ()
    oracle: bool = False
    aggregate: str = "sum"
    seed: int = 0
    limit: int = 256
    sensitivity: bool = True
    complexity: ComplexityOptions = field(default_factory=ComplexityOptions)


@dataclass(frozen=True)
class FinetuneOptions:
    """How a network is trained; `lr=None` takes the optimiser's own default."""

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
