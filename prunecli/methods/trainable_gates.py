"""Trainable gates: 0 or 1 forward, a shaped gradient backward, and a penalty on missing the target.

Source: Kim, Park, Jung, Choe, "Plug-in, Trainable Gate for Streamlining Arbitrary Neural Networks",
AAAI 2020 (arXiv 1904.10921). Theirs: the gate function and the loss `lambda (rho - c(w) / c_0)^2`
of the cost that the gates keep. Ours: gates sit on the weights that read a channel (theirs are on
the filter); they begin spread by saliency (`--start equal`: just above the threshold, as
published); the threshold follows a falling budget exactly (`--threshold fixed`: it stays at 0);
gates move in steps of one length (`--gate-lr`: plain gradients); and the mask is frozen, and cut,
after two thirds of the epochs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from prunecli.gating.functions import straight_gate
from prunecli.methods.learning.gates import GateRule
from prunecli.methods.learning.rule import cubic
from prunecli.methods.registry import METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from prunecli.gating.bank import GateBank
    from prunecli.methods.learning.rule import Moment
    from prunecli.methods.learning.search import Search

LAMBDA = 2.0
"""Weight of the penalty; the authors' value is not known to us."""

ABOVE, NOISE = 0.05, 0.01
"""Where gates begin as published: above the threshold, a little apart."""

FARTHEST = 1.0
"""Gates stay within -1 and 1: farther away they could not come back."""


@METHODS.register(
    "gates",
    summary="Trainable gates: 0 or 1 forward, shaped gradients, a penalty on missing the target.",
    source="Kim et al. 2020 (AAAI), arXiv 1904.10921",
)
class TrainableGates(GateRule):
    """The published gate and penalty in the common life of a search."""

    search: ClassVar[float] = 2 / 3

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self.exact = self.options.threshold == "exact"
        self.weight = LAMBDA if self.options.strength is None else self.options.strength
        self.line = 0.0

    def start(self) -> Tensor:
        """Return gates spread by saliency, or all just above the threshold."""
        if self.options.start == "spread":
            return self.of.spread
        generator = torch.Generator().manual_seed(self.of.setup.options.seed)
        noise = torch.rand(self.of.spread.shape, generator=generator)
        return (ABOVE + NOISE * noise).to(self.of.spread.device)

    def trained(self, bank: GateBank) -> Tensor:
        """Return 0 or 1 with the shaped gradient."""
        gates = straight_gate(bank.logits, self.line, self.options.gate_shape)
        # The best of a group is open, also where it is below the threshold.
        return gates + (bank.mask - gates).detach()

    def budget_progress(self, moment: Moment) -> float:
        """Return how far down the budget is; with a fixed threshold it is there at once."""
        return cubic(2 * moment.progress) if self.exact else 1.0

    def before_step(self, moment: Moment) -> None:
        """Put the threshold where the budget of the moment wants it."""
        bank, logits = moment.gates, moment.gates.logits.detach()
        if self.exact:
            self.follow(moment, logits)
            closed = logits[bank.mask == 0]
            self.line = float(closed.max()) if len(closed) else float(logits.min())
        else:
            bank.mask.copy_((logits >= self.line).float())
            self._keep_one(bank)
            bank.mask.copy_(self.of.closed_with(bank.mask))

    def _keep_one(self, bank: GateBank) -> None:
        """Open the best gate of every group that has no other and may not go."""
        logits, groups = bank.logits.detach(), self.of.groups
        count = int(groups.max()) + 1
        alive = torch.zeros(count, device=groups.device).index_add(0, groups, bank.mask)
        for group in self.of.forced & set(torch.unique(groups[alive[groups] == 0]).tolist()):
            own = torch.nonzero(groups == group).flatten()
            bank.mask[own[logits[own].argmax()]] = 1.0

    def extra_loss(self, moment: Moment) -> Tensor:
        """Return lambda (rho - c / c_0)^2, summed over the limits that are exceeded or tightest.

        A limit with room left while another one binds asks for nothing (ours: the paper has one).
        """
        gates = self.trained(moment.gates)
        widths = self.of.widths(gates)
        limits = [
            (ceiling / self.of.dense[kind], self.of.expected.kept(kind, widths))
            for kind, ceiling in self.of.ceilings.items()
        ]
        tightest = max(float(kept.detach()) / goal for goal, kept in limits)
        terms = [
            (goal - kept).square()
            for goal, kept in limits
            if float(kept.detach()) / goal >= min(tightest, 1.0)
        ]
        return self.weight * torch.stack(terms).sum().float()

    def after_step(self, moment: Moment) -> None:
        """Hold gates within reach of the threshold."""
        with torch.no_grad():
            moment.gates.logits.clamp_(-FARTHEST, FARTHEST)
