"""What rules share that shrink weights by a penalty: no gates, and one threshold at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prunecli.methods.learning.rule import Rule, weight_scores

if TYPE_CHECKING:
    from torch import Tensor

    from prunecli.methods.learning.rule import Moment
    from prunecli.methods.learning.search import Search


class PenaltyRule(Rule):
    """A penalty on weights; `strength` is its weight in the loss unless somebody says otherwise."""

    search: ClassVar[float] = 0.6
    gated: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    by_weights: ClassVar[bool] = True
    strength: ClassVar[float]

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        given = self.options.strength
        self.weight = self.strength if given is None else given

    def scores(self, moment: Moment) -> Tensor:
        """Return the signal of the weights as they are."""
        return weight_scores(self.of, moment.module)
