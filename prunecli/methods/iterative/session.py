"""The life of an iterative run: updates, a removal, updates, until the budget is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch

from prunecli.allocation import Problem, ceilings_of
from prunecli.data import plan_batches
from prunecli.data.pixels import normalise
from prunecli.errors import InputError, InterruptedRunError
from prunecli.evaluation.images import tally_batches, to_evaluation
from prunecli.methods.iterative.criterion import saliency_between, weight_saliency
from prunecli.methods.iterative.removal import (
    REMOVALS,
    exponential,
    removals_left,
    remove,
    widths_of,
)
from prunecli.methods.iterative.stage import Setup, begin, cut, write_back
from prunecli.methods.iterative.state import Snapshot, load_snapshot, save_snapshot
from prunecli.methods.iterative.taps import heard
from prunecli.progress import Step
from prunecli.pruning.selection import Selection, select
from prunecli.report import Evaluation, RemovalReport
from prunecli.signals import needs_data
from prunecli.training.interrupt import held_interrupts
from prunecli.training.loop import check_finite, epoch_batches, train_step
from prunecli.training.sampling import with_positions
from prunecli.training.state import STATE_FILE, write_logs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from prunecli.allocation import Saliency
    from prunecli.cost.model import Widths

EVALUATION_BATCH = 256


class Session:
    """A run with what changes: the network that is left, and what is known of the way there."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.slim = begin(setup, np.ones(setup.network.coupling.atom_count, np.bool_))
        self.before: Evaluation | None = None
        self.removals: tuple[RemovalReport, ...] = ()
        self.selection: Selection | None = None
        self.seconds: tuple[float, float] = (0.0, 0.0)
        self.log: Path | None = None
        self.seen: list[tuple[Tensor, ...]] = []

    @property
    def target(self) -> Widths | None:
        """The widths to end at; None before the first removal, whose scores decide about them."""
        return None if self.selection is None else self.selection.widths

    @property
    def widths(self) -> Widths:
        """The widths that are left."""
        return widths_of(self.setup.network.coupling.groups, self.slim.keep)

    @property
    def done(self) -> int:
        """Updates done before the current round."""
        return self.removals[-1].updates if self.removals else 0

    @property
    def total(self) -> int:
        """Updates of the whole run, as far as can be told now."""
        end = self.setup.rehearsed if self.target is None else self.target
        left = removals_left(
            len(self.removals),
            channels=int((self.widths - end).sum()),
            per_removal=self.setup.options.iterative.remove_per_step,
        )
        return self.done + (left + 1) * self.setup.options.iterative.updates

    def run(self) -> None:
        """Take all updates and removals that are left; the weights are in the dense module then.

        Raises `InterruptedRunError` after Ctrl-C, with the state of the last removal saved, and
        `InputError` (`DIVERGED`, `OUT_OF_MEMORY`).
        """
        try:
            if self.before is None:
                self.before = score(self.setup, self.slim.run.bare)
                self.save()
            while not self._is_there():
                loss = self._update()
                self._remove(loss, score(self.setup, self.slim.run.bare))
                self.save()
            self._update()
            write_back(self.setup, self.slim)
        except KeyboardInterrupt:
            self._interrupted()
        except torch.OutOfMemoryError as error:
            raise InputError(
                "the device has too little memory for this batch size",
                code="OUT_OF_MEMORY",
                hint=f"--batch-size {max(self.setup.recipe.options.batch_size // 2, 1)}",
            ) from error

    def save(self) -> None:
        """Write the state; nothing may be accumulated yet."""
        folder, run = self.setup.folder, self.slim.run
        if folder is None or self.before is None:
            return
        snapshot = Snapshot(
            settings=self.setup.settings,
            keep=torch.as_tensor(self.slim.keep),
            selection=self.selection,
            epoch=run.epoch,
            step=run.step,
            before=self.before,
            removals=self.removals,
            first_seconds=self.seconds[0],
            model=run.bare.state_dict(),
            optimizer=run.optimizer.state_dict(),
        )
        with held_interrupts():
            save_snapshot(snapshot, folder)
            self.log = write_logs(self.removals, folder, kind=RemovalReport)

    def restore(self) -> bool:
        """Go back to the saved state; return False when there is none."""
        folder = self.setup.folder
        found = load_snapshot(folder, settings=self.setup.settings) if folder else None
        if found is None:
            return False
        self.slim = begin(self.setup, found.keep.numpy())
        run = self.slim.run
        run.bare.load_state_dict(found.model)
        run.optimizer.load_state_dict(found.optimizer)
        run.epoch, run.step = found.epoch, found.step
        write_back(self.setup, self.slim)
        self.selection, self.before, self.removals = (
            found.selection, found.before, found.removals
        )  # fmt: skip
        self.seconds = (found.first_seconds, 0.0)
        return True

    # --- one round -------------------------------------------------------------------------------

    def _is_there(self) -> bool:
        return self.target is not None and bool((self.widths == self.target).all())

    def _update(self) -> float:
        """Take the updates of one round; return their mean loss."""
        run, recipe = self.slim.run, self.setup.recipe
        start, losses = time.perf_counter(), []
        run.model.train()
        for images, labels in self._batches():
            loss, _ = train_step(recipe, run, images, labels)
            if self.slim.accumulator is not None:
                self.slim.accumulator.add(*heard(self.slim.taps, len(labels)), len(labels))
            losses.append(loss)
            recipe.progress(Step("iterative", self.done + len(losses), self.total, self._facts()))
        if not losses:
            raise InputError("no image could be read", code="NO_IMAGES")
        mean = float(torch.stack(losses).mean())
        check_finite(mean, recipe, epoch=run.epoch, step=run.step)
        spent = (time.perf_counter() - start) / len(losses)
        self.seconds = (self.seconds[0] or spent, spent)
        return mean

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images of the next updates; the run's position is that of the batch at hand."""
        run, recipe = self.slim.run, self.setup.recipe
        self.seen = []
        for epoch, start, batches in self._positions():
            run.epoch = epoch
            self.seen.append(batches)
            for at, _, images, labels in with_positions(recipe.images, batches):
                run.step = start + at
                yield images, labels
            run.step = start + len(batches)

    def _positions(self) -> Iterator[tuple[int, int, tuple[Tensor, ...]]]:
        """Yield what the next updates take of every epoch: its number, the first step, batches."""
        run, options = self.slim.run, self.setup.recipe.options
        epoch, step, left = run.epoch, run.step, self.setup.options.iterative.updates
        while left:
            batches = epoch_batches(
                len(self.setup.recipe.images), options.batch_size, seed=options.seed, epoch=epoch
            )[step : step + left]
            yield epoch, step, batches
            left -= len(batches)
            epoch, step = epoch + 1, 0

    def _remove(self, loss: float, scored: Evaluation) -> None:
        setup, options = self.setup, self.setup.options
        network = setup.network
        write_back(setup, self.slim)
        saliency = np.zeros(self.slim.keep.size)
        saliency[self.slim.keep] = self._saliency()
        if self.selection is None:
            self.selection = select(network, saliency, setup.budget, options, held=setup.held)
        keep = remove(
            self._problem(saliency),
            self.slim.keep,
            self.selection.widths,
            load=self._goal(),
            most=options.iterative.remove_per_step,
        )
        self.slim, error = cut(setup, self.slim, keep)
        left = network.cost.cost(self.widths)
        removal = RemovalReport(
            removal=len(self.removals) + 1,
            updates=self.done + options.iterative.updates,
            channels=int(keep.sum()),
            flops=left["flops"] / network.cost.dense["flops"],
            params=left["params"] / network.cost.dense["params"],
            train_loss=loss,
            loss=scored.loss,
            accuracy=scored.accuracy,
            seconds_per_update=self.seconds[1],
            max_rel_error=error,
        )
        self.removals = (*self.removals, removal)

    def _problem(self, saliency: Saliency) -> Problem:
        network = self.setup.network
        ceilings = ceilings_of(self.setup.budget, network.cost.dense)
        return Problem(network.coupling.groups, saliency, network.cost, ceilings, ())

    def _goal(self) -> float:
        """Return the cost, as a fraction of the budget, that the next removal goes down to."""
        if self.setup.options.iterative.remove_per_step is not None or self.target is None:
            return 0.0
        problem = self._problem(np.zeros(0))
        dense = problem.load(self.setup.network.cost.dense_widths)
        goals = exponential(dense, problem.load(self.target), REMOVALS)
        return goals[min(len(self.removals), REMOVALS - 1)]

    def _saliency(self) -> Saliency:
        """Return one saliency per atom that is left; the dense module holds what was trained."""
        setup, slim = self.setup, self.slim
        if slim.accumulator is not None:
            return slim.accumulator.saliency()
        if not needs_data(setup.options.signal):
            return weight_saliency(setup.network, slim.coupling, slim.run.bare, setup.options)
        graph, _ = setup.network.graph_network(slim.keep)
        recipe = setup.recipe

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for positions in self.seen:
                for images, labels in recipe.images.gather(positions):
                    yield normalise(images, recipe.input), labels

        return saliency_between(
            slim.coupling,
            graph,
            setup.options,
            example=setup.network.trace.example,
            batches=batches,
        )

    def _facts(self) -> dict[str, float | str]:
        last = self.removals[-1] if self.removals else None
        facts: dict[str, float | str] = {"removals": str(len(self.removals))}
        if last is not None:
            facts |= {"FLOPs": f"{last.flops:.0%}", "accuracy": last.accuracy}
        return facts

    def _interrupted(self) -> NoReturn:
        where = self.setup.folder
        saved = where is not None and (where / STATE_FILE).exists()
        raise InterruptedRunError(
            f"stopped after {len(self.removals)} removals, {self.done} updates of {self.total}",
            code="INTERRUPTED",
            where=str(where) if where else None,
            hint="go on with the same command and --resume" if saved else "nothing was saved",
        ) from None


def score(setup: Setup, model: nn.Module) -> Evaluation:
    """Evaluate a network on the held-out images."""
    tally = tally_batches(
        model,
        setup.held_out,
        plan_batches(len(setup.held_out), EVALUATION_BATCH),
        input=setup.recipe.input,
        device=setup.recipe.accelerator.device,
    )
    return to_evaluation(tally, setup.held_out)
