"""Group-sparse training: all weights of a channel shrink together, those of weak channels faster.

Source: Fang et al. 2023 (DepGraph, arXiv 2301.12900): the sum over coupled channels of
`gamma_k I_k` with I_k their squared weights and
`gamma_k = 2^(alpha (I_max - I_k) / (I_max - I_min))`.
Ours: I_k sums over the sites of the traced channel, and the cut has one threshold on a cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from prunecli.graph.coupling.groups import STAYS
from prunecli.methods.learning.penalties import PenaltyRule
from prunecli.methods.learning.rule import beside_their_group
from prunecli.methods.registry import METHODS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunecli.methods.learning.rule import Moment
    from prunecli.methods.learning.search import Search

STRENGTH = 5e-4
ALPHA = 4.0
"""How much more the weakest channel of a group shrinks than the strongest: 2 to this power."""


@METHODS.register(
    "group-lasso",
    summary="All weights of a channel shrink together, those of weak channels faster.",
    source="Fang et al. 2023 (DepGraph), arXiv 2301.12900",
)
class GroupLasso(PenaltyRule):
    """A penalty on the coupled weights of a channel."""

    strength: ClassVar[float] = STRENGTH

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        coupling = search.setup.network.coupling
        self.atoms = coupling.atom_count
        device = search.spread.device
        self.groups = [
            (group.first, group.width)
            for group in coupling.groups
            if search.gated[group.atoms].any()
        ]
        self.rows = [
            (name, dim, torch.as_tensor(atoms, device=device))
            for name, dims in coupling.tensors.items()
            for dim, atoms in dims.items()
        ]

    def sizes(self, module: nn.Module) -> Tensor:
        """Return the sum of squares of all weights of each atom, differentiable."""
        parameters = dict(module.named_parameters())
        total = torch.zeros(self.atoms + 1, device=self.of.spread.device)
        for name, dim, atoms in self.rows:
            if name not in parameters:
                continue
            weight = parameters[name]
            others = [at for at in range(weight.dim()) if at != dim]
            squares = weight.square().sum(others) if others else weight.square()
            for row in atoms:
                at = torch.where(row == STAYS, self.atoms, row)
                total = total.index_add(0, at, squares.to(total.dtype))
        return total[:-1]

    def extra_loss(self, moment: Moment) -> Tensor:
        """Return the sum of gamma_k I_k over all channels of the search."""
        sizes = self.sizes(moment.module)
        terms = []
        for first, width in self.groups:
            own = sizes[first : first + width]
            seen = own.detach()
            spread = (seen.max() - seen.min()).clamp(min=1e-12)
            gamma = 2 ** (ALPHA * (seen.max() - seen) / spread)
            terms.append((gamma * own).sum())
        return self.weight * torch.stack(terms).sum()

    def scores(self, moment: Moment) -> Tensor:
        """Return a signal of the weights, by default their L2 norm, beside that of their group."""
        return beside_their_group(self.of, super().scores(moment))
