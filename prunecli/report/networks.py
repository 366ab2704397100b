"""What a model costs, and what is reported of its channel groups and layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cost(Mapping[str, float | None]):
    """What a model costs for one input, by kind of cost; those that everybody asks for by name.

    `flops` counts one multiply-add as one FLOP, as fvcore does; `activations` counts the elements
    of the outputs of convolutions and matrix products; `bytes` those of all parameters and buffers.
    `latency` is in milliseconds per batch, predicted from a latency table where there is one.
    """

    __slots__ = ("_amounts",)

    def __init__(self, amounts: Mapping[str, float | None] | None = None, **more: float) -> None:
        self._amounts = {**(amounts or {}), **more}
        self._amounts.setdefault("latency", None)

    def __getitem__(self, kind: str) -> float | None:
        return self._amounts[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._amounts)

    def __len__(self) -> int:
        return len(self._amounts)

    def __repr__(self) -> str:
        return f"Cost({self._amounts})"

    @property
    def flops(self) -> float:
        """Multiply-adds."""
        return self._known("flops")

    @property
    def params(self) -> float:
        """Elements of parameters."""
        return self._known("params")

    @property
    def activations(self) -> float:
        """Elements of the outputs of convolutions and matrix products."""
        return self._known("activations")

    @property
    def bytes(self) -> float:
        """Bytes of parameters and buffers."""
        return self._known("bytes")

    @property
    def channels(self) -> float:
        """Channels that can be cut."""
        return self._known("channels")

    @property
    def latency(self) -> float | None:
        """Milliseconds per batch; None where no table predicts them."""
        return self._amounts["latency"]

    def _known(self, kind: str) -> float:
        amount = self._amounts[kind]
        assert amount is not None
        return amount


@dataclass(frozen=True)
class GroupReport:
    """One channel group before and after pruning; the shares are of the original model's totals.

    `importance` is that of the layer where the allocation uses it.
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
    """One layer with a weight before and after pruning, in the order of execution.

    `channels` are those that it makes, `kept` those that are kept; `reason` says why the layer is
    frozen, where it is.
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
    """Channels that are frozen, and why; `flops_share` is the share of FLOPs that this freezes."""

    name: str
    reason: str
    where: str | None = None
    flops_share: float = 0.0


MASKED = "equals the masked original"
"""What a proof shows of a pruned model, in the words that every output uses."""


@dataclass(frozen=True)
class Verified:
    """How a pruned model was verified: what it was compared with, and the max relative error.

    `by_structure` tells whether its operators besides equal, one by one, what is left of the
    original's; `scope` says for which inputs, or why there was nothing to compare. `limits` are
    conditions that are not covered, each a sentence.
    """

    method: str
    max_rel_error: float
    by_structure: bool = False
    scope: str = ""
    limits: tuple[str, ...] = ()

    @property
    def error(self) -> str:
        """The largest relative error as text; a plain 0 where no bit differs."""
        return f"{self.max_rel_error:.1e}" if self.max_rel_error else "0"

    @property
    def statement(self) -> str:
        """What was shown, how, and for which inputs, with the error in small."""
        how = f", operator by operator, for {self.scope}" if self.by_structure else ""
        but = (
            ""
            if not self.limits
            else f", with {len(self.limits)} " + ("limit" if len(self.limits) == 1 else "limits")
        )
        return f"{MASKED}{how}{but} (max relative error {self.error})"


@dataclass(frozen=True)
class TrainingMode:
    """Whether the pruned model does in training mode what the masked original does there.

    `reason` says why that is not verified.
    """

    verified: bool
    max_rel_error: float | None = None
    reason: str = ""

    @property
    def statement(self) -> str:
        """What was shown, with the error in small."""
        if not self.verified or self.max_rel_error is None:
            return "not verified"
        return Verified("", self.max_rel_error).statement


@dataclass(frozen=True)
class CutCost:
    """Cost before and after, and the fraction kept of each."""

    before: Cost
    after: Cost
    kept: Mapping[str, float]
