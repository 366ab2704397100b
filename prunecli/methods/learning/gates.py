"""What rules with trained gates share: where gates begin, how they follow a budget and step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from prunecli.methods.learning.rule import Rule

if TYPE_CHECKING:
    from torch import Tensor

    from prunecli.gating.bank import GateBank
    from prunecli.methods.learning.rule import Moment

STEP = 1e-3
"""How far a logit of typical gradient moves in one update, before momentum."""


class GateRule(Rule):
    """A rule with logits that are trained.

    Where no learning rate is given for them, the gradient of the logits is brought to a root mean
    square of 1, so that `step` is how far they move (ours); else it is left as it is.
    """

    step = STEP

    def start(self) -> Tensor:
        """Return the logits [gated atoms] to begin with."""
        return self.of.spread

    def begin(self, bank: GateBank | None) -> None:
        """Set the logits to where they begin."""
        assert bank is not None
        with torch.no_grad():
            bank.logits.copy_(self.start())

    def gate_rate(self) -> float:
        """Return the learning rate of gates."""
        given = self.options.gate_lr
        return self.step if given is None else given

    @property
    def clipped(self) -> bool:
        """Tell whether the gradients of gates count where gradients are clipped: plain ones do."""
        return self.options.gate_lr is not None

    def budget_progress(self, moment: Moment) -> float:
        """Return how far down the budget is, from 0 to 1."""
        return moment.progress

    def budget(self, moment: Moment) -> float:
        """Return the share of the first limited cost that the budget has come down to."""
        kind, ceiling = next(iter(self.of.ceilings_at(self.budget_progress(moment)).items()))
        return ceiling / self.of.dense[kind]

    def follow(self, moment: Moment, scores: Tensor) -> None:
        """Mask all but the best scores that the budget of the moment allows."""
        ceilings = self.of.ceilings_at(self.budget_progress(moment))
        moment.gates.mask.copy_(self.of.open_at(scores, ceilings))

    @torch.no_grad()
    def level(self, moment: Moment, scale: float) -> None:
        """Bring the gradient of the logits to one size, unless a learning rate was given."""
        gradient = moment.gates.logits.grad
        if gradient is None or self.options.gate_lr is not None:
            return
        size = gradient.double().square().mean().sqrt()
        if bool(size.isfinite()) and float(size) > 0:
            gradient.mul_(scale / size)

    def after_backward(self, moment: Moment, scale: float) -> None:
        """Take steps of one length."""
        self.level(moment, scale)
