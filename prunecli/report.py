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
    `latency` is in milliseconds, predicted from a latency table where there is one.
    """

    flops: float
    params: float
    activations: float
    bytes: float
    channels: float
    latency: float | None = None


@dataclass(frozen=True)
class GroupReport:
    """One channel group before and after a cut; the shares are of the dense network's totals.

    `importance` is that of the layer where the allocation looks at it.
    """

    name: str
    before: int
    after: int
    flops_share: float
    params_share: float
    exact: bool = True
    importance: float | None = None


@dataclass(frozen=True)
class LayerCut:
    """One layer with a weight before and after a cut, in the order of execution.

    `channels` are those that it makes, `kept` those that stay; `reason` says why they all do, where
    something holds them.
    """

    name: str
    operator: str
    channels: int
    kept: int
    flops: float
    flops_kept: float
    params: float
    params_kept: float
    reason: str = ""


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
class LayerSparsity:
    """The weights of one layer and how many are kept; `reason` says why it is left as it is."""

    name: str
    shape: tuple[int, ...]
    weights: int
    kept: int
    reason: str = ""


@dataclass(frozen=True)
class SparsityReport:
    """Zeroed weights: `sparsity` is the share that went of the `weights` of all listed layers.

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
    """One removal of an iterative run, and the updates before it.

    `loss` and `accuracy` are those on held-out images when the updates were done, `flops` and
    `params` the shares that are left when the channels have gone; `max_rel_error` is that of the
    proof of this cut, on the weights of its time.
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
    """What happened on the way to an iterative cut; for a dry run, what would.

    `accuracy` and `loss` are on `images` held-out images: of the dense network, and of the result.
    `criterion` says where the signal was taken; `seconds_per_update` is that of the first round and
    of the last.
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


@dataclass(frozen=True)
class LatencyReport:
    """Milliseconds of a forward in ONNX Runtime on this machine's CPU.

    `dense_ms` and `slim_ms` are predicted from the table; `kept` is the share that this leaves.
    `measured` is the cut network beside the dense one (None for a dry run), `measured_kept` its
    share, with a 95 % interval, and `error` what the predicted share is off by, as a share of it.
    `asked` is the share that the budget asks for, and `met` whether it was kept in reality.
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
class Score:
    """Mean cross-entropy and share of right answers over `images`.

    `calibrated` is the least cross-entropy when all logits are divided by one number (temperature
    scaling, Guo et al. 2017): what the network knows, however sure of it it says it is.
    """

    loss: float
    accuracy: float
    calibrated: float
    images: int


@dataclass(frozen=True)
class Trial:
    """One cut that was scored on images and not proven; `kept` is the share kept of each cost.

    `repaired` is the score after the repair. Where there was no cut `problem` says why, and there
    is no score.
    """

    signal: str
    allocation: str
    seed: int
    budget: Mapping[str, Mapping[str, float]]
    kept: Mapping[str, float]
    score: Score | None
    repaired: Score | None = None
    seconds: float = 0.0
    problem: str = ""

    @property
    def final(self) -> Score | None:
        """The score of what the user would get: after the repair, where there was one."""
        return self.score if self.repaired is None else self.repaired


@dataclass(frozen=True)
class SearchReport:
    """What `--signal auto` tried at the asked budget, and the signal that it took.

    `images` are those that the trials were scored on; `measured` as in `RepairReport`.
    """

    chosen: str
    dense: Trial
    trials: tuple[Trial, ...]
    images: int
    measured: str
    seconds: float


@dataclass(frozen=True)
class SweepReport:
    """Loss and accuracy over budgets of one cost, `kind`; no network was written.

    `trials` are ordered from the largest budget to the smallest; `images` and `measured` are as in
    `SearchReport`, `repair` names the repairs behind `Trial.repaired`. `suggested` is the cheapest
    trial within one point of the dense network's accuracy, or else the most accurate one.
    """

    architecture: str
    kind: str
    cost: Cost
    dense: Trial
    trials: tuple[Trial, ...]
    images: int
    measured: str
    repair: tuple[str, ...]
    suggested: Trial | None
    seconds: float
    table: Path | None = None
    pictures: tuple[Path, ...] = ()
    next_command: str = ""
    warnings: tuple[str, ...] = ()
    page: Path | None = None


@dataclass(frozen=True)
class DeadGroup:
    """The dead channels of one group, by their indices.

    `constant` are the same for all images, `unread` those of which all reading weights are zero,
    `below` those whose mean replacement penalty is within the threshold. `stays` says why some of
    them cannot go; `flops_share` is what the others cost, of the network's FLOPs.
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
    """Loss and accuracy before and after dead channels went; `measured` as in `RepairReport`."""

    loss_before: float
    loss_after: float
    accuracy_before: float
    accuracy_after: float
    images: int
    measured: str


@dataclass(frozen=True)
class DeadReport:
    """Dead channels: of `channels` in all, `removable` can go.

    `images` is how many were looked at (0: the weights alone), `not_looked_at` counts the channels
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
class PruneReport:
    """The outcome of `prune`; `output` and `verified` are None for a dry run.

    `verified` speaks of the cut; a repair changes the weights after it. `importance` names the
    importance of layers that the allocation looked at, if it did. `sparsity` is there where
    weights were zeroed and no channel was cut; then `cost.after` counts weights that are not zero
    (`params`) and the bytes that they and their places take, and the FLOPs are those of the dense
    kernels that run the network. `candidates` is what `--signal auto` chose from, `dead` what was
    found to do nothing.
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
    latency: LatencyReport | None = None
    candidates: SearchReport | None = None
    dead: DeadReport | None = None
    layers: tuple[LayerCut, ...] = ()
    pictures: tuple[Path, ...] = ()
    page: Path | None = None


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
    """One epoch: losses, held-out accuracy, learning rate at its end, images per second.

    `sparsity` is the share of zeroed weights at its end, where some are held at zero.
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
class AccuracyChange:
    """Accuracy before and after, on the split that `split` names."""

    before: float
    after: float
    split: str


@dataclass(frozen=True)
class RunStep:
    """One step on the way of a network, as its file tells it; what it does not tell is None.

    `verb` is `prune`, `finetune` or `export`, and empty where that is not known. `cost` and
    `budget` are those of a cut (`sparsity`: of one that zeroed weights), `chosen` says by what.
    `accuracy` is that before and after the step, `teacher` that of the dense network on the same
    images.
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
    curriculum went through; `weights` the lowest and the highest in the loss, where they differ.
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
    `history` is the way of the network up to here.
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
    """The outcome of `export`; `history` is the way of the network up to here."""

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
class LayerAnalysis:
    """One layer with a weight, in the order of execution.

    It makes `channels`, of which `free` may be cut, with the channel groups `groups`; `reason` says
    why none of them may, where something holds them. `saliency` is the mean over those that may
    (None where the signal cannot see them).
    """

    name: str
    operator: str
    channels: int
    free: int
    flops: float
    params: float
    saliency: float | None
    groups: tuple[str, ...] = ()
    reason: str = ""


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
class ImportanceReport:
    """How important each channel group is, by importance and group; None where it cannot be told.

    `agreement` is Spearman's rank correlation of every two importances ("probe, energy").
    """

    images: int
    seconds: float
    groups: Mapping[str, Mapping[str, float | None]]
    agreement: Mapping[str, float | None]


@dataclass(frozen=True)
class ModelAnalysis:
    """What `analyze model.pt` finds; `prunable_flops` is a share of the network's FLOPs.

    `elsewhere` counts the FLOPs outside of `layers`, by operator.
    """

    architecture: str
    cost: Cost
    groups: tuple[GroupAnalysis, ...]
    frozen: tuple[FrozenReport, ...]
    prunable_flops: float
    lowest_flops: float
    accuracy: float | None
    not_counted: Mapping[str, int]
    oracle: OracleReport | None = None
    importance: ImportanceReport | None = None
    sparsity: SparsityReport | None = None
    dead: DeadReport | None = None
    layers: tuple[LayerAnalysis, ...] = ()
    elsewhere: Mapping[str, float] = field(default_factory=dict)


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
    """An image most of whose neighbours are of another class: `share` of them are `looks_like`.

    `neighbour` is the nearest of these.
    """

    path: str
    name: str
    looks_like: str
    share: float
    neighbour: str = ""


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
class KeptLearnability:
    """Mean learnability of the images of a subset and of those left out; None for no image.

    `unknown` images of the subset are in no record.
    """

    kept: float | None
    dropped: float | None
    unknown: int


@dataclass(frozen=True)
class Subset:
    """A part of a data set that was written: `images` of them, by `rule`, `per_class` at most."""

    path: Path
    images: int
    per_class: int
    rule: str
    learnability: KeptLearnability | None = None


@dataclass(frozen=True)
class FittedPoint:
    """One data set that a relation was fitted on: its CSG, and the test error of the network.

    `foretold` is the error that the relation gives it when no variant of the same data is fitted.
    """

    name: str
    data: str
    classes: int
    images_per_class: float
    csg: float
    error: float
    foretold: float


@dataclass(frozen=True)
class Relation:
    """How the test error of one small network followed the CSG over data sets.

    `predicted` = a + b `predictor`, and perhaps + c log10 of the images per class: `coefficients`.
    `r` and `p` are those of the fit, `left_out` is how far it misses a data set that it was not
    fitted on (mean of the sizes), `families_left_out` the same when no variant of that data was
    fitted on, by the data's name. Errors are fractions.
    """

    embedding: str
    volume: str
    predicted: str
    predictor: str
    coefficients: tuple[float, ...]
    r: float
    p: float
    left_out: float
    families_left_out: Mapping[str, float]
    network: str
    training: str
    points: tuple[FittedPoint, ...]


@dataclass(frozen=True)
class ExpectedError:
    """The test error that a small network would have on a data set, with its 95 % interval.

    It is read off `relation` at `csg`. Both are None where nothing can be said, and `outside` says
    why: the data is unlike what was fitted on, or its CSG was measured in another way.
    """

    error: float | None
    interval: tuple[float, float] | None
    outside: tuple[str, ...]
    relation: Relation | None
    csg: float | None = None


@dataclass(frozen=True)
class LearnabilityPair:
    """How far two records agree about which images are hard (`prunecli.learnability.Agreement`).

    A correlation is None where one of both does not vary. `counts` are images by their learnability
    in the first run (rows) and in the second, in equal steps from 0 to 1.
    """

    first: str
    second: str
    images: int
    pearson: float | None
    spearman: float | None
    overlap: float
    always_right: int
    pearson_wrong: float | None
    spearman_wrong: float | None
    counts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class LearnedRun:
    """One record: mean learnability, images that were never right, mean forgetting events.

    `levels` are the images that were right after none of the epochs, after one, and so on.
    """

    name: str
    network: str
    images: int
    epochs: int
    scored: str
    learnability: float
    never: int
    always: int
    forgetting: float
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class HardImage:
    """An image with its mean learnability over all records, and its class."""

    path: str
    name: str
    learnability: float


@dataclass(frozen=True)
class LearnabilityReport:
    """What records of several runs say about the images of a data set.

    `hardest` are the least learnable on average; `label_errors` those of them that no network had
    right at the end, whose labels are worth a look.
    """

    runs: tuple[LearnedRun, ...]
    pairs: tuple[LearnabilityPair, ...]
    hardest: tuple[HardImage, ...]
    label_errors: tuple[HardImage, ...]


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
    `looked_at` images were opened for `unreadable`, `duplicates`, `near_duplicates` and `kinds`,
    whose names are in `listed` (the first thousand of a kind); None for features.
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
    expected: ExpectedError | None = None
    listed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    looked_at: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalyzeReport:
    """The outcome of `analyze`, of a model, of a data set, or of both."""

    model: ModelAnalysis | None
    dataset: DatasetAnalysis | None
    seconds: float
    warnings: tuple[str, ...] = ()
    learnability: LearnabilityReport | None = None
    pictures: tuple[Path, ...] = ()
    page: Path | None = None


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
