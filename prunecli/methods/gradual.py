"""Gradual pruning: channels are masked by their weights, more of them as the budget falls.

Source: Zhu, Gupta 2017 (arXiv 1710.01878), for channels and a cost instead of weights and their
number: a cubic schedule, masks made anew from the dense weights, which may return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunecli.methods.learning.rule import Rule, beside_their_group, cubic, weight_scores
from prunecli.methods.registry import METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from prunecli.methods.learning.rule import Moment

EVERY = 100
"""Updates between two masks; in short searches at least twenty masks are made."""


@METHODS.register(
    "gradual",
    summary="Channels are masked by a signal of their weights along a cubic schedule, then cut.",
    source="Zhu, Gupta 2017, arXiv 1710.01878",
)
class Gradual(Rule):
    """Masks by a signal of the weights, made anew along the way."""

    search: ClassVar[float] = 0.6
    learns: ClassVar[bool] = False
    by_weights: ClassVar[bool] = True

    def _progress(self, moment: Moment) -> float:
        return cubic(moment.progress)

    def budget(self, moment: Moment) -> float:
        """Return the share of the first limited cost that the budget has come down to."""
        kind, ceiling = next(iter(self.of.ceilings_at(self._progress(moment)).items()))
        return ceiling / self.of.dense[kind]

    def before_step(self, moment: Moment) -> None:
        """Make the masks anew where it is time."""
        if moment.step % min(EVERY, max(moment.steps // 20, 1)) == 0:
            ceilings = self.of.ceilings_at(self._progress(moment))
            moment.gates.mask.copy_(self.of.open_at(self.scores(moment), ceilings))

    def scores(self, moment: Moment) -> Tensor:
        """Return the signal of the dense weights as they are."""
        found = weight_scores(self.of, moment.module)
        return beside_their_group(self.of, found)
