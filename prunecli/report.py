"""What every command returns: frozen data with a JSON form, and no word about how it is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """What a network costs for one input.

    `flops` counts one multiply-add as one FLOP, as fvcore does; `activations` counts the elements
    of the outputs of convolutions and matrix products; `bytes` those of all parameters and buffers.
    """

    flops: float
    params: float
    activations: float
    bytes: float
    channels: float


@dataclass(frozen=True)
class GroupReport:
    """One channel group before and after a cut; the shares are of the dense network's totals."""

    name: str
    before: int
    after: int
    flops_share: float
    params_share: float
    exact: bool = True


@dataclass(frozen=True)
class FrozenReport:
    """Channels that cannot be cut, and why; `flops_share` is the FLOPs that this holds fast."""

    name: str
    reason: str
    where: str | None = None
    flops_share: float = 0.0


@dataclass(frozen=True)
class Verified:
    """How a cut was proven: the reference it was compared with and the largest relative error."""

    method: str
    max_rel_error: float


@dataclass(frozen=True)
class CutCost:
    """Cost before and after, and the fraction kept of each."""

    before: Cost
    after: Cost
    kept: Mapping[str, float]


@dataclass(frozen=True)
class RepairStep:
    """Loss and accuracy after one step: `dense`, `cut`, or a repair that changed `layers`.

    `skipped` says why layers could not be repaired, with counts.
    """

    name: str
    loss: float
    accuracy: float
    seconds: float = 0.0
    layers: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RepairReport:
    """What repair did: `images` are those it looked at, `measured` those that were scored.

    `measured` is `held_out`, or `calibration` for the images of the repair itself.
    """

    steps: tuple[RepairStep, ...]
    images: int
    measured: str


@dataclass(frozen=True)
class PruneReport:
    """The outcome of `prune`; `output` and `verified` are None for a dry run.

    `verified` speaks of the cut; a repair changes the weights after it.
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


@dataclass(frozen=True)
class Evaluation:
    """Scores on one split: `accuracy` and `top5` are fractions, `loss` is mean cross-entropy."""

    accuracy: float
    top5: float
    loss: float
    count: int
    per_class: Mapping[str, float] = field(default_factory=dict)
    split: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EpochReport:
    """One epoch: losses, held-out accuracy, learning rate at its end, images per second."""

    epoch: int
    train_loss: float
    accuracy: float
    loss: float
    learning_rate: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True)
class AccuracyChange:
    """Accuracy before and after, on the split that `split` names."""

    before: float
    after: float
    split: str


@dataclass(frozen=True)
class FinetuneReport:
    """The outcome of `finetune`: the best epoch is chosen on images held out from training."""

    output: Path
    accuracy: AccuracyChange
    held_out: AccuracyChange
    epochs: tuple[EpochReport, ...]
    best_epoch: int
    log: Path | None
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parity:
    """Largest relative difference between ONNX Runtime and torch over `inputs` random inputs."""

    max_rel_error: float
    inputs: int


@dataclass(frozen=True)
class BenchmarkRow:
    """Dense and slim, timed in one interleaved run; times are the medians in milliseconds."""

    device: str
    provider: str
    batch: int
    threads: int
    dense_ms: float | None
    slim_ms: float
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    flops_ratio: float | None
    dense_percentiles: Mapping[str, float]
    slim_percentiles: Mapping[str, float]
    runs: int


@dataclass(frozen=True)
class ExportReport:
    """The outcome of `export`."""

    output: Path
    opset: int
    bytes: int
    parity: Parity
    benchmark: tuple[BenchmarkRow, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupAnalysis:
    """One channel group: what it costs, how small it can get, what its channels are worth."""

    name: str
    width: int
    minimum: int
    flops_share: float
    params_share: float
    exact: bool
    saliency: Mapping[str, float]
    sensitivity: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class SignalAgreement:
    """Spearman's correlation of a signal with the oracle; None where it is not defined.

    `against` is `size` for the size of the loss change, `change` for the signed one. `per_layer` is
    the mean over channel groups, `pooled` over all channels, `pooled_l2` the same after every
    group's saliencies are divided by their L2 norm (Molchanov et al. 2017).
    """

    signal: str
    against: str
    per_layer: float | None
    pooled: float | None
    pooled_l2: float | None


@dataclass(frozen=True)
class OracleReport:
    """The change of the mean loss when each channel alone is removed, and how signals rank them."""

    images: int
    channels: int
    seconds: float
    loss_changes: Mapping[str, tuple[float, ...]]
    signals: tuple[SignalAgreement, ...]


@dataclass(frozen=True)
class ModelAnalysis:
    """What `analyze model.pt` finds; `prunable_flops` is a share of the network's FLOPs."""

    architecture: str
    cost: Cost
    groups: tuple[GroupAnalysis, ...]
    frozen: tuple[FrozenReport, ...]
    prunable_flops: float
    lowest_flops: float
    accuracy: float | None
    not_counted: Mapping[str, int]
    oracle: OracleReport | None = None


@dataclass(frozen=True)
class ClassCount:
    """One class and its number of images."""

    name: str
    count: int


@dataclass(frozen=True)
class ClassDifficulty:
    """How hard a class is to tell from the others.

    `others` is the share of its neighbours' votes that go to other classes, `overlap` the sum of
    its similarities with them, `entropy` (bits) how many classes it is like.
    """

    name: str
    others: float
    overlap: float
    entropy: float


@dataclass(frozen=True)
class ConfusingImage:
    """An image most of whose neighbours are of another class: `share` of them are `looks_like`."""

    path: str
    name: str
    looks_like: str
    share: float


@dataclass(frozen=True)
class ReductionStep:
    """The complexity of random subsets of one size: mean and standard deviation over draws."""

    images_per_class: int
    score: float
    deviation: float


@dataclass(frozen=True)
class Reduction:
    """Complexity against images per class.

    `smallest` is the least size whose score stays within `tolerance` (a share of `whole`, the score
    of all images), as those of all larger ones do; None where no smaller set keeps it.
    """

    steps: tuple[ReductionStep, ...]
    whole: float
    tolerance: float
    smallest: int | None


@dataclass(frozen=True)
class Subset:
    """A part of a data set that was written: `images` of them, by `rule`, `per_class` at most."""

    path: Path
    images: int
    per_class: int
    rule: str


@dataclass(frozen=True)
class DatasetAnalysis:
    """What `analyze data/` finds.

    `balance` is the smallest class over the largest; `duplicates` are groups of equal images,
    `near_duplicates` of almost equal ones, `kinds` counts what is unusual (`tiny`, `animated`).
    `csg` is the mean over repeats with its 95 % interval, `similarity` the symmetric class matrix W
    of the CSG paper and `eigenvalues` its spectrum, both means over repeats. `csg_votes` is the
    same score from plain votes of neighbours, without volumes, and `confused_pairs` are the classes
    that these take for each other most: both are steadier, and free of the scale of pixels; so are
    `difficulty`, `class_map` (places in a plane, similar classes near each other) and `confusing`.
    """

    path: str
    format: str
    images: int
    classes: tuple[ClassCount, ...]
    sizes: Mapping[str, int]
    balance: float
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    csg: float
    csg_interval: tuple[float, float]
    csg_settings: Mapping[str, Any]
    eigenvalues: tuple[float, ...]
    similarity: tuple[tuple[float, ...], ...]
    confused_pairs: tuple[tuple[str, str, float], ...]
    csg_votes: float | None = None
    csg_votes_interval: tuple[float, float] | None = None
    csg_deviation: float | None = None
    difficulty: tuple[ClassDifficulty, ...] = ()
    class_map: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confusing: tuple[ConfusingImage, ...] = ()
    reduction: Reduction | None = None
    subset: Subset | None = None
    near_duplicates: tuple[tuple[str, ...], ...] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalyzeReport:
    """The outcome of `analyze`, of a model, of a data set, or of both."""

    model: ModelAnalysis | None
    dataset: DatasetAnalysis | None
    seconds: float
    warnings: tuple[str, ...] = ()


def to_json(value: Any) -> Any:
    """Return plain JSON data for a report: dataclasses become objects, paths become text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value
