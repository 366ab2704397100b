"""What a network costs, and what is said of its channel groups and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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
