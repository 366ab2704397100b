"""Removals and updates in turn, as a method of training: the network shrinks after every round."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.allocation import Problem, ceilings_of
from prunecli.cutting.surgery import slices_of
from prunecli.data.pixels import normalise
from prunecli.methods.iterative.criterion import saliency_between
from prunecli.methods.iterative.removal import (
    REMOVALS,
    exponential,
    removals_left,
    remove,
    widths_of,
)
from prunecli.methods.iterative.stage import begin, cut, write_back
from prunecli.methods.iterative.taps import heard
from prunecli.methods.selection_state import selection_fields, selection_from
from prunecli.methods.weight_saliency import weight_saliency
from prunecli.pruning.proven_cut import plan_of
from prunecli.pruning.selection import Selection, select
from prunecli.report import RemovalReport
from prunecli.signals import needs_data
from prunecli.training.loop import epoch_batches
from prunecli.training.method import PlainMethod, Replacement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, fx

    from prunecli.allocation import Saliency
    from prunecli.cost.model import Widths
    from prunecli.methods.setup import Setup
    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan
    from prunecli.report import EpochReport
    from prunecli.training.method import Batch, TrainingRun


class IterativePruning(PlainMethod):
    """Removes channels after every round of updates until the budget is kept, then trains a round.

    The network to train is `stage.module`. Every process listens to its own images; what was heard
    is added up before a removal, and the main process's saliencies decide.
    """

    saves_between_steps = False  # what was heard in a round is not saved

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.stage = begin(setup, np.ones(setup.network.coupling.atom_count, np.bool_))
        self.selection: Selection | None = None
        self.removals: tuple[RemovalReport, ...] = ()
        self.seconds: tuple[float, float] = (0.0, 0.0)
        self.seen: list[tuple[int, int]] = []

    @property
    def module(self) -> fx.GraphModule:
        """The network to train."""
        return self.stage.module

    @property
    def network(self) -> Network:
        """The dense network, which channels are cut from."""
        return self.setup.network

    @property
    def keep(self) -> NDArray[np.bool_]:
        """One boolean per atom of the dense network: whether it is left."""
        return self.stage.keep

    @property
    def target(self) -> Widths | None:
        """The widths to end at; None before the first removal, whose scores decide about them."""
        return None if self.selection is None else self.selection.widths

    @property
    def widths(self) -> Widths:
        """The widths that are left."""
        return widths_of(self.setup.network.coupling.groups, self.stage.keep)

    def start(self, run: TrainingRun) -> None:
        """Plan as many steps as the widths of the rehearsal take."""
        run.steps = self._steps()

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:
        """Listen to the activations and their gradients, or remember what was trained on."""
        self.seen.append((run.epoch, run.step))
        if self.stage.accumulator is not None:
            heard_now = heard(self.stage.taps, len(batch), scale=batch.scale)
            self.stage.accumulator.add(*heard_now, len(batch))

    def after_round(self, run: TrainingRun, report: EpochReport) -> Replacement | None:
        """Remove channels, unless the budget is kept: then that was the last round."""
        spent = report.seconds / max(len(self.seen), 1)
        self.seconds = (self.seconds[0] or spent, spent)
        if self._is_there():
            return None
        write_back(self.setup, self.stage, run.bare)
        before, keep = self.stage, self._choose(run)
        self.stage, error = cut(self.setup, keep)
        self.seen = []
        self.removals = (*self.removals, self._removal(report, error))
        run.steps = self._steps()
        return Replacement.cut(self.stage.module, slices_of(before.coupling, keep[before.keep]))

    def settled(self, run: TrainingRun) -> bool:  # noqa: ARG002
        """Tell whether the budget is kept."""
        return self._is_there()

    def facts(self) -> dict[str, float]:
        """Return how many removals there have been, and the share of the FLOPs that is left."""
        return {"removals": len(self.removals), "FLOPs": self._left("flops")}

    def log_rows(self) -> tuple[RemovalReport, ...]:
        """Log one row per removal."""
        return self.removals

    def state(self) -> dict[str, Any]:
        """Return what is kept, the widths to end at, and what was removed when."""
        return {
            "keep": torch.as_tensor(self.stage.keep),
            "selection": None if self.selection is None else selection_fields(self.selection),
            "removals": [vars(removal) for removal in self.removals],
            "seconds": list(self.seconds),
        }

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> Replacement:  # noqa: ARG002
        """Go on with the network that was left."""
        keep = state["keep"].numpy()
        self.stage = begin(self.setup, keep)
        self.selection = state["selection"] and selection_from(state["selection"])
        self.removals = tuple(RemovalReport(**removal) for removal in state["removals"])
        first, last = state["seconds"]
        self.seconds = (first, last)
        return Replacement.cut(self.stage.module, slices_of(self.setup.network.coupling, keep))

    def finish(self, run: TrainingRun) -> PruningPlan:
        """Put the trained weights into the dense module; return the plan of the whole way."""
        setup = self.setup
        write_back(setup, self.stage, run.bare)
        return plan_of(
            setup.network,
            self.stage.keep,
            self.widths,
            budget=setup.budget,
            options=setup.options,
        )

    # --- the number of rounds --------------------------------------------------------------------

    def _is_there(self) -> bool:
        return self.target is not None and bool((self.widths == self.target).all())

    def _steps(self) -> int:
        """Return the updates of the whole run, as far as can be told now."""
        end = self.setup.rehearsed if self.target is None else self.target
        own = self.setup.options.training
        left = removals_left(
            len(self.removals),
            channels=int((self.widths - end).sum()),
            per_removal=own.remove_per_step,
        )
        return (len(self.removals) + left + 1) * own.updates

    # --- one removal -----------------------------------------------------------------------------

    def _choose(self, run: TrainingRun) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return what the next removal keeps; the first one decides about the widths to end at."""
        setup, options = self.setup, self.setup.options
        saliency = np.zeros(self.stage.keep.size)
        own = run.recipe.processes.from_main(torch.as_tensor(self._saliency(run)))
        saliency[self.stage.keep] = own.numpy()
        if self.selection is None:
            self.selection = select(setup.network, saliency, setup.budget, options, held=setup.held)
        return remove(
            self._problem(saliency),
            self.stage.keep,
            self.selection.widths,
            load=self._goal(),
            most=options.training.remove_per_step,
        )

    def _removal(self, report: EpochReport, error: float) -> RemovalReport:
        return RemovalReport(
            removal=len(self.removals) + 1,
            updates=report.epoch * self.setup.options.training.updates,
            channels=int(self.stage.keep.sum()),
            flops=self._left("flops"),
            params=self._left("params"),
            train_loss=report.train_loss,
            loss=report.loss,
            accuracy=report.accuracy,
            seconds_per_update=self.seconds[1],
            max_rel_error=error,
        )

    def _left(self, kind: str) -> float:
        """Return the share of a cost that is left."""
        cost = self.setup.network.cost
        return float(cost.cost(self.widths)[kind] / cost.dense[kind])

    def _problem(self, saliency: Saliency) -> Problem:
        network = self.setup.network
        ceilings = ceilings_of(self.setup.budget, network.cost.dense)
        return Problem(network.coupling.groups, saliency, network.cost, ceilings, ())

    def _goal(self) -> float:
        """Return the cost, as a fraction of the budget, that the next removal goes down to."""
        if self.setup.options.training.remove_per_step is not None or self.target is None:
            return 0.0
        problem = self._problem(np.zeros(0))
        dense = problem.load(self.setup.network.cost.dense_widths)
        goals = exponential(dense, problem.load(self.target), REMOVALS)
        return goals[min(len(self.removals), REMOVALS - 1)]

    def _saliency(self, run: TrainingRun) -> Saliency:
        """Return one saliency per atom that is left; the dense module holds what was trained."""
        setup, stage, recipe = self.setup, self.stage, run.recipe
        if stage.accumulator is not None:
            stage.accumulator.merge(recipe.processes.total)
            return stage.accumulator.saliency()
        if not needs_data(setup.options.signal):
            return weight_saliency(setup.network, stage.coupling, run.bare, setup.options)
        graph, _ = setup.network.graph_network(stage.keep)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels in recipe.images.gather(self._trained_on(run)):
                yield normalise(images, recipe.input), labels

        return saliency_between(
            stage.coupling,
            graph,
            setup.options,
            network=setup.network,
            batches=batches,
        )

    def _trained_on(self, run: TrainingRun) -> list[Tensor]:
        """Return the positions of the batches of this round, those of all processes together."""
        recipe, found = run.recipe, []
        for epoch, steps in itertools.groupby(self.seen, lambda place: place[0]):
            batches = epoch_batches(
                len(recipe.images), recipe.options.batch_size, seed=run.seed, epoch=epoch
            )
            found += [batches[step] for _, step in steps]
        return found
