"""What all regularisers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.training.method import PlainMethod

if TYPE_CHECKING:
    from prunecli.training.method import TrainingRun


class Noise(PlainMethod):
    """Training under noise, for the sake of what it makes of the weights."""

    def settled(self, run: TrainingRun) -> bool:
        """Tell whether there was any: the network before it is no result, however good."""
        return run.taken > 0
