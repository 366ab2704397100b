"""What pruning by several signals and budgets reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.report.measured import Preparation
    from prunecli.report.networks import Cost


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy and accuracy over `images`.

    `calibrated` is the lowest cross-entropy when all logits are divided by one number (temperature
    scaling, Guo et al. 2017). It does not depend on how confident the model is.
    """

    loss: float
    accuracy: float
    calibrated: float
    images: int


@dataclass(frozen=True)
class Trial:
    """One pruned model that was scored and not verified; `kept` is the share kept of each cost.

    `repaired` is the score after the repair. Where pruning failed `problem` says why, and there is
    no score.
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
    """What `--signal auto` tried at the budget, and the signal that it chose.

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
    """Loss and accuracy over budgets of one cost, `kind`; no model was written.

    `trials` are ordered from the largest budget to the smallest; `images` and `measured` are as in
    `SearchReport`, `repair` names the repairs behind `Trial.repaired`. `suggested` is the cheapest
    trial within one point of the original model's accuracy, or else the most accurate one.
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
    preparation: Preparation | None = None
