"""Network slimming: L1 on the scales of batch norm, then one threshold through all of them.

Source: Liu et al. 2017 (arXiv 1708.06519).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from prunecli.errors import InputError
from prunecli.methods.learning.penalties import PenaltyRule
from prunecli.methods.registry import METHODS

if TYPE_CHECKING:
    from torch import Tensor

    from prunecli.methods.learning.rule import Moment
    from prunecli.methods.learning.search import Search
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

LAMBDA = 1e-4
"""Weight of the penalty, as published for VGG."""


@METHODS.register(
    "slimming",
    summary="L1 on the scales of batch norm while training, then one threshold on them.",
    source="Liu et al. 2017, arXiv 1708.06519",
)
class Slimming(PenaltyRule):
    """A penalty on scales."""

    strength: ClassVar[float] = LAMBDA

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        network = search.setup.network
        groups = [g for g in network.coupling.groups if search.gated[g.atoms].any()]
        sites = {name for group in groups for name, _ in group.sites}
        norms = {name.removesuffix(".running_var") for name in network.trace.tensors.values()
                 if name.endswith(".running_var")}  # fmt: skip
        self.scales = sorted(
            name for name in sites if name.removesuffix(".weight") in norms and name != ""
        )
        if not self.scales:
            raise self.blind(network, search.setup.options)

    @classmethod
    def blind(cls, network: Network, options: PruneOptions) -> InputError:  # noqa: ARG003
        """Return the error of a network without scales to shrink."""
        return InputError(
            "slimming shrinks the scales of batch norm, and no channel of this model has one",
            code="NO_BATCH_NORM",
            where=type(network.model).__name__,
            hint="use --method group-lasso, which shrinks all weights of a channel",
        )

    def extra_loss(self, moment: Moment) -> Tensor:
        """Return lambda times the sum of the absolute scales."""
        scales = [moment.module.get_parameter(name).abs().sum() for name in self.scales]
        return self.weight * torch.stack(scales).sum()
