"""Removals and updates in turn, as a way of pruning.

The loop is that of Molchanov et al. 2017 (arXiv 1611.06440) and Theis et al. 2018 (arXiv
1801.05787): updates during which the criterion is accumulated, then a removal, costs taken anew.
Ours: the traced graph is what trains, re-emitted narrower at every removal; and the widths to end
at follow from the first scores and the allocation, as in a cut at once, so that they are aligned:
which channels go, and in which order, is decided at every removal. Every removal is a physical cut,
proven on the weights of its time.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from prunecli.methods.iterative.method import IterativePruning
from prunecli.methods.iterative.planning import check_iterative, planned_for, training_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.data import ImageSet
    from prunecli.methods.road import Change
    from prunecli.methods.setup import Setup
    from prunecli.options import FinetuneOptions, PruneOptions
    from prunecli.report import IterativeReport
    from prunecli.training.recipe import Recipe
    from prunecli.training.session import Session

SCORED = 1024
"""Held-out images that every removal is scored on."""


class Iterative:
    """A few channels at a time, with training between."""

    scored: int | None = SCORED

    def check(self, options: PruneOptions) -> None:
        """Raise `InputError` for options that removals in turn cannot follow."""
        check_iterative(options)

    def training(self, options: PruneOptions) -> FinetuneOptions:
        """Return how the updates train: at half of the optimiser's rate throughout."""
        return training_options(options)

    def round_steps(self, options: PruneOptions) -> int | None:
        """Return the updates between two removals."""
        return options.training.updates

    def planned(self, setup: Setup, recipe: Recipe, held_out: ImageSet) -> dict[str, Any]:
        """Return how many removals there will be, and how long that takes."""
        return {"iterative": planned_for(setup, recipe, held_out)}

    def begin(self, setup: Setup, recipe: Recipe) -> IterativePruning:  # noqa: ARG002
        """Return the method with the dense network to start from."""
        return IterativePruning(setup)

    def told(
        self,
        planned: Mapping[str, Any],
        method: IterativePruning,
        session: Session,
        change: Change,
    ) -> dict[str, Any]:
        """Return the removals and what came of them."""
        run: IterativeReport = planned["iterative"]
        return {
            "iterative": dataclasses.replace(
                run,
                removals=method.removals,
                accuracy=change.accuracy,
                loss=change.loss,
                images=change.images,
                seconds_per_update=method.seconds,
                log=session.log,
                shares=session.shares,
            )
        }
