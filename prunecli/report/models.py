"""What the analysis of a model reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.report.cuts import BlockReport, DeadReport, SparsityReport
    from prunecli.report.measured import Preparation
    from prunecli.report.networks import Cost, FrozenReport


@dataclass(frozen=True)
class GroupAnalysis:
    """One channel group: its cost, the channels always kept, and their saliency."""

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

    It makes `channels`, of which `free` are prunable, with the channel groups `groups`; `reason`
    says why it is frozen, where it is. `saliency` is the mean over the prunable channels (None
    where the signal has no value for them).
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
    """How important each channel group is, by importance and group; None where it is not known.

    `agreement` is Spearman's rank correlation of every two importances ("probe, energy").
    """

    images: int
    seconds: float
    groups: Mapping[str, Mapping[str, float | None]]
    agreement: Mapping[str, float | None]


@dataclass(frozen=True)
class ModelAnalysis:
    """What `analyze model.pt` finds; `prunable_flops` is a share of the model's FLOPs.

    `elsewhere` counts the FLOPs outside `layers`, by operator; `blocks` are the residual blocks
    that can be deleted as a whole.
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
    blocks: tuple[BlockReport, ...] = ()
    preparation: Preparation | None = None
