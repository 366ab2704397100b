# ruff: noqa: ARG002 - the hooks of a rule that does nothing look at nothing
"""What tells one way to learn what to prune from another: a rule in the common life of a search.

The life is `LearnedPruning`: gates in the dense network, a budget that falls, a cut at the end of
the search, batch norm estimated anew, and training for the rest. A rule says how gates follow from
logits, what is added to the loss, and by which scores the channels are chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from prunecli.errors import InputError
from prunecli.methods.weight_saliency import weight_saliency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from prunecli.gating.bank import GateBank
    from prunecli.methods.learning.search import Search
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions


@dataclass(frozen=True)
class Moment:
    """Where a search stands: `step` of `steps`, and what is live in it."""

    step: int
    steps: int
    module: nn.Module
    bank: GateBank | None
    generator: torch.Generator

    @property
    def progress(self) -> float:
        """The part of the search that is done, from 0 to 1 at its last step."""
        return self.step / max(self.steps - 1, 1)

    @property
    def gates(self) -> GateBank:
        """The bank of a rule that has gates."""
        assert self.bank is not None
        return self.bank


class Rule:
    """A rule that does nothing; the methods are what overrides it.

    `search` is the part of the epochs that channels are chosen in, `learns` says whether gates have
    logits to train, `gated` whether there are gates at all. With `by_weights` channels are scored
    anew along the way, by a signal that looks at weights alone.
    """

    search: ClassVar[float] = 0.5
    gated: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    by_weights: ClassVar[bool] = False

    def __init__(self, search: Search) -> None:
        self.of = search
        self.options = search.setup.options.training

    @classmethod
    def check(cls, options: PruneOptions) -> None:
        """Raise `InputError` for options that the rule cannot follow, before any work."""

    @classmethod
    def blind(cls, network: Network, options: PruneOptions) -> InputError:
        """Return the error of a signal that sees no channel of a network."""
        return InputError(
            f"the signal {options.signal} sees no channel of this model",
            code="NOTHING_TO_CUT",
            where=type(network.model).__name__,
            hint="use another --signal, such as l2",
        )

    def begin(self, bank: GateBank | None) -> None:
        """Set the logits that gates begin with."""

    def trained(self, bank: GateBank) -> Tensor:
        """Return the gates [gated atoms] of a step of training."""
        return bank.mask

    def tested(self, bank: GateBank) -> Tensor:
        """Return the gates [gated atoms] of evaluation."""
        return bank.mask

    def budget(self, moment: Moment) -> float:
        """Return the share of the first limited cost that the budget has come down to."""
        return 1.0

    def expected_gates(self, bank: GateBank) -> Tensor:
        """Return what the gates [gated atoms] are expected to be."""
        return bank.mask

    def gate_rate(self) -> float:
        """Return the learning rate of gates."""
        return 0.0

    @property
    def clipped(self) -> bool:
        """Tell whether the gradients of gates count where gradients are clipped."""
        return True

    def before_step(self, moment: Moment) -> None:
        """Follow the budget of the moment."""

    def extra_loss(self, moment: Moment) -> Tensor | None:
        """Return what is added to the loss."""
        return None

    def after_backward(self, moment: Moment, scale: float) -> None:
        """Change the gradients, which were taken `scale` times."""

    def after_step(self, moment: Moment) -> None:
        """Change what was updated."""

    def scores(self, moment: Moment) -> Tensor:
        """Return what the channels [gated atoms] are worth at the end: more is kept."""
        return moment.gates.logits.detach()

    def facts(self) -> Mapping[str, float]:
        """Return what to show beside budget, costs and gates."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside logits and masks."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""


def weight_scores(search: Search, module: nn.Module) -> Tensor:
    """Return the signal of the weights of the dense `module`, one number per gated atom."""
    setup = search.setup
    found = weight_saliency(setup.network, setup.network.coupling, module, setup.options)
    return torch.as_tensor(found[search.gated], dtype=torch.float64, device=search.spread.device)


def beside_their_group(search: Search, scores: Tensor) -> Tensor:
    """Return scores [gated atoms] over the mean of their group: layers differ in scale.

    Source: the mean normaliser of Fang et al. 2023 (arXiv 2301.12900).
    """
    count = int(search.groups.max()) + 1
    zeros = torch.zeros(count, dtype=scores.dtype, device=scores.device)
    sums = zeros.index_add(0, search.groups, scores)
    sizes = zeros.index_add(0, search.groups, torch.ones_like(scores))
    means = (sums / sizes.clamp(min=1)).clamp(min=torch.finfo(scores.dtype).tiny)
    return scores / means[search.groups]


def cubic(progress: float) -> float:
    """Return how much of the way is done by a cubic schedule: fast first, then slower.

    Source: Zhu, Gupta 2017 (arXiv 1710.01878).

    >>> [round(0.9 * cubic(t), 4) for t in (0, 0.1, 0.25, 0.5, 0.75, 1, 2)]
    [0.0, 0.2439, 0.5203, 0.7875, 0.8859, 0.9, 0.9]
    """
    return 1 - (1 - min(max(progress, 0.0), 1.0)) ** 3
