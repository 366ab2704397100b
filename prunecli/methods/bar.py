"""Budget-aware regularisation: a sparsity term that a barrier multiplies as the budget nears.

Source: Lemaire, Achkar, Jodoin, "Structured Pruning of Neural Networks with Budget-Aware
Regularization", CVPR 2019 (arXiv 1811.09332), and public remains of their code: hard-concrete
gates, `L = L_D + lambda f(V, a, b) L_S`, where L_S is the expected activation volume, `f = r^2 /
(1 - r)` with `r = (V - a) / (b - a)`, and b falls from the dense volume to the budget. The exact
constant of f in the paper is not known to us. Ours: the budget may be of any cost, which L_S and V
then count as shares of the dense one; logits begin spread by saliency (`--start equal`: all alike);
V is the expected cost (`--volume hard`: that of the gates that are more likely open than not, which
sees nothing until many gates cross at once); evaluation and the cut take as many gates as the
budget allows (`--threshold fixed`: in evaluation those that are more likely open); gates move in
steps of one length (`--gate-lr`: plain gradients); f has a ceiling.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from prunecli.gating.functions import (
    OPEN_ABOVE,
    hard_concrete,
    hard_concrete_median,
    open_probability,
)
from prunecli.methods.learning.gates import GateRule
from prunecli.methods.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from prunecli.gating.bank import GateBank
    from prunecli.methods.learning.rule import Moment
    from prunecli.methods.learning.search import Search

LAMBDA = 1e-5
"""Weight of the term, in activations of one input, as in the public remains."""

START, WIDE = 2.5, 2.0
"""The logit that gates begin with, and how far the least and the most salient are from it."""

NOISE = 0.01
"""How far apart gates begin that begin alike."""

TOLERANCE = 1.01
"""Where b starts, in dense volumes: the dense network is within it."""

MARGIN = 1e-4
"""How far below the budget a lies, in parts of where b starts."""

STEEPEST = 1e3
"""Ceiling of the barrier: infinite beyond b, it would undo the network in one step."""

SLOPE, RATE = 10.0, 4.0
"""Constants of the sigmoid and the exponential schedule."""


def transition(name: str, progress: float) -> float:
    """Return how far b has come from the dense volume (0) to the budget (1).

    >>> [round(transition("sigmoid", t), 6) for t in (0, 0.1, 0.25, 0.5, 1)]
    [0.0, 0.011447, 0.070104, 0.5, 1.0]
    >>> [round(transition("exponential", t), 6) for t in (0.25, 0.5)]
    [0.643914, 0.880797]
    """
    t = min(max(progress, 0.0), 1.0)
    if name == "sigmoid":
        low = _sigmoid(-SLOPE / 2)
        return (_sigmoid(SLOPE * (t - 0.5)) - low) / (1 - 2 * low)
    if name == "exponential":
        return (1 - math.exp(-RATE * t)) / (1 - math.exp(-RATE))
    return t


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def barrier(volume: float, a: float, b: float, ceiling: float = STEEPEST) -> float:
    """Return f(V, a, b): 0 up to a, r^2 / (1 - r) between, `ceiling` from b on and at most.

    >>> [round(barrier(v, 1, 4), 6) for v in (0.5, 1, 2, 2.5, 3, 3.9, 4)]
    [0.0, 0.0, 0.166667, 0.5, 1.333333, 28.033333, 1000.0]
    """
    if volume <= a:
        return 0.0
    if volume >= b:
        return ceiling
    r = (volume - a) / (b - a)
    return min(r * r / (1 - r), ceiling)


@METHODS.register(
    "bar",
    summary="Budget-aware regularisation: hard-concrete gates under a barrier that falls.",
    source="Lemaire, Achkar, Jodoin 2019 (CVPR), arXiv 1811.09332",
)
class BudgetAware(GateRule):
    """Hard-concrete gates, an expected cost, and a barrier."""

    search: ClassVar[float] = 0.6
    step = 5e-3

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        dense = self.of.dense
        # In the paper's unit, activations, whatever the budget counts.
        scale = dense["activations"]
        given = self.options.strength
        self.weight = scale * (LAMBDA if given is None else given)
        self.last = 0.0
        self.violations = 0

    def start(self) -> Tensor:
        """Return logits around 2.5: nearly open, spread by saliency or nearly alike."""
        spread = self.of.spread
        if self.options.start == "spread":
            order = torch.argsort(torch.argsort(spread)).to(spread) / max(len(spread) - 1, 1)
            return START + WIDE * (2 * order - 1)
        generator = torch.Generator().manual_seed(self.of.setup.options.seed)
        return START + NOISE * torch.rand(spread.shape, generator=generator).to(spread.device)

    def trained(self, bank: GateBank) -> Tensor:
        """Return drawn gates, one draw for the whole batch."""
        return hard_concrete(bank.logits, bank.draws)

    def tested(self, bank: GateBank) -> Tensor:
        """Return the gates of the median draw, of those that are open."""
        return hard_concrete_median(bank.logits) * bank.mask

    def expected_gates(self, bank: GateBank) -> Tensor:
        """Return the probability that each gate is open."""
        return open_probability(bank.logits.detach())

    def budget_progress(self, moment: Moment) -> float:
        """Return how far b has come."""
        return transition(self.options.budget_schedule, moment.progress)

    def before_step(self, moment: Moment) -> None:
        """Say which gates count as open."""
        logits = moment.gates.logits.detach()
        if self.options.threshold == "exact":
            self.follow(moment, logits)
        else:
            moment.gates.mask.copy_(self.of.closed_with((logits > OPEN_ABOVE).float()))

    def extra_loss(self, moment: Moment) -> Tensor:
        """Return lambda f(V, a, b) L_S, summed over the limits of the budget."""
        logits = moment.gates.logits
        widths = self.of.widths(open_probability(logits))
        seen = widths.detach()
        if self.options.volume == "hard":
            seen = self.of.widths((logits.detach() > OPEN_ABOVE).double())
        progress = self.budget_progress(moment)
        terms, self.last, beyond = [], 0.0, False
        for kind, ceiling in self.of.ceilings.items():
            goal = ceiling / self.of.dense[kind]
            b = (1 - progress) * TOLERANCE + progress * goal
            volume = float(self.of.expected.kept(kind, seen))
            height = barrier(volume, goal - MARGIN * TOLERANCE, b)
            self.last, beyond = max(self.last, height), beyond or volume >= b
            terms.append(height * self.of.expected.kept(kind, widths))
        self.violations += beyond
        return self.weight * torch.stack(terms).sum().float()

    def scores(self, moment: Moment) -> Tensor:
        """Return the logits."""
        return moment.gates.logits.detach()

    def facts(self) -> Mapping[str, float]:
        """Return the highest barrier of any limit, and how many updates were beyond one."""
        return {"barrier": self.last, "beyond": float(self.violations)}

    def state(self) -> dict[str, Any]:
        """Return what was counted."""
        return {"last": self.last, "violations": int(self.violations)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to what was counted."""
        self.last, self.violations = state["last"], state["violations"]
