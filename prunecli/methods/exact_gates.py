"""Straight-through gates under an exact budget: ours.

Forward, a gate is 1 or 0: as many of the highest logits are open as the budget of the moment
allows, so that the search never runs below it. Backward, the gradient of the loss goes straight
through. Logits also pay for what their channel costs, at the price at which opening and closing
balance, and move in steps of one length: neither the size of the gradients nor the optimiser
decides how fast channels are chosen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from prunecli.gating.functions import masked_gate
from prunecli.methods.learning.gates import GateRule
from prunecli.methods.learning.rule import cubic
from prunecli.methods.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from prunecli.gating.bank import GateBank
    from prunecli.methods.learning.rule import Moment
    from prunecli.methods.learning.search import Search

RAMP = 0.5
"""The part of the search in which the budget falls to the one that was asked for."""

MEMORY = 0.99
"""How much of the price of a step the next one keeps."""


@METHODS.register(
    "exact-gates",
    summary="Straight-through gates; as many are open as the budget of the moment allows (ours).",
)
class ExactGates(GateRule):
    """Masks by rank, straight-through gradients, and a price on cost."""

    search: ClassVar[float] = 0.4

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self.price = 0.0

    def start(self) -> Tensor:
        """Begin where a cut at once would cut."""
        return self.of.spread

    def trained(self, bank: GateBank) -> Tensor:
        """Return the mask, with straight-through gradients."""
        return masked_gate(bank.logits, bank.mask)

    def budget_progress(self, moment: Moment) -> float:
        """Return how far down the budget is."""
        return cubic(moment.progress / RAMP)

    def before_step(self, moment: Moment) -> None:
        """Open as many gates as the budget of the moment allows."""
        self.follow(moment, moment.gates.logits)

    @torch.no_grad()
    def after_backward(self, moment: Moment, scale: float) -> None:
        """Charge every gate for its cost, and take a step of one length."""
        logits = moment.gates.logits
        assert logits.grad is not None
        gradient = logits.grad.double() / scale
        with torch.enable_grad():
            cost = self.of.price(moment.gates.mask)
        fair = float(-gradient.sum() / cost.sum())
        if not math.isfinite(fair):
            return  # fp16 overflowed: the update is not made, and the price stays as it is
        self.price = fair if not self.price else MEMORY * self.price + (1 - MEMORY) * fair
        logits.grad.copy_((gradient + max(self.price, 0.0) * cost) * scale)
        self.level(moment, scale)

    def facts(self) -> Mapping[str, float]:
        """Return the price of the whole budget, in units of the loss."""
        return {"price": self.price}

    def state(self) -> dict[str, Any]:
        """Return the price."""
        return {"price": self.price}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a price."""
        self.price = state["price"]
