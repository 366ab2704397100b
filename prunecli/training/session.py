"""The life of one run: start or resume, train round by round, remember the best, stop safely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from prunecli.data import ImageSet, plan_batches
from prunecli.errors import InputError, InterruptedRunError
from prunecli.lifetime.interrupts import held_interrupts
from prunecli.processes import is_lost, lost_process
from prunecli.report import EpochReport, Evaluation
from prunecli.training.devices import precision_of
from prunecli.training.hits import EVALUATION_BATCH, image_hits, left_over, packed, unpacked
from prunecli.training.loop import check_finite, learning_rate, train_round
from prunecli.training.placing import replace_network_
from prunecli.training.state import (
    STATE_FILE,
    Best,
    Snapshot,
    Totals,
    load_snapshot,
    save_snapshot,
    write_logs,
)
from prunecli.training.trackers import nobody
from prunecli.training.transfer import head_epochs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from prunecli.plan import PruningPlan
    from prunecli.training.method import TrainingRun


COMPILER = ("torch._dynamo", "torch._inductor")
"""Where the errors of torch.compile come from; to import it takes a second."""

TRAINED_RIGHT = 2
"""What `TrainingRun.seen` says of an image that was right as it was trained on."""


@dataclass(frozen=True)
class Place:
    """Where a run keeps its state (None: nowhere), how often, and what must not change there."""

    folder: Path | None
    save_seconds: float
    settings: Mapping[str, Any]


class Session:
    """A run with the memory that outlives it."""

    def __init__(
        self,
        run: TrainingRun,
        *,
        held_out: ImageSet,
        place: Place,
    ) -> None:
        self.recipe = run.recipe
        self.run = run
        self.held_out = held_out
        self.place = place
        self._tell: Callable[[EpochReport], None] = nobody
        self.before: Evaluation | None = None
        self.reports: tuple[EpochReport, ...] = ()
        self._best: tuple[int, Best] | None = None
        self.log: Path | None = None
        self.hits: list[torch.Tensor] = []

    @property
    def best(self) -> Best | None:
        """The best round; None where another network has taken the place of the one it was of."""
        if self._best is None or self._best[0] != self.run.generation:
            return None
        return self._best[1]

    @best.setter
    def best(self, best: Best | None) -> None:
        self._best = None if best is None else (self.run.generation, best)

    @property
    def is_done(self) -> bool:
        """Whether the last round that was planned is scored."""
        return self._scored_until() >= self.run.steps

    @property
    def is_spent(self) -> bool:
        """Whether rounds are left, and none was better for as many as `patience` allows.

        Those in which a new head is trained alone do not count.
        """
        options, best = self.recipe.options, self.best
        if options.patience is None or best is None or self.is_done:
            return False
        alone = head_epochs(options.epochs, options.head_epochs) if options.new_head else 0
        return len(self.reports) - max(best.epoch, alone) >= options.patience

    @property
    def shares(self) -> tuple[int, ...]:
        """The images that each of several processes had in the last round."""
        return self.reports[-1].shares if self.reports else ()

    def restore(self) -> bool:
        """Go back to the saved state; return False when there is none."""
        folder = self.place.folder
        run, processes = self.run, self.recipe.processes
        snapshot = (
            load_snapshot(folder, settings=self.place.settings, processes=processes)
            if folder
            else None
        )
        if snapshot is None:
            return False
        self._check_steps(snapshot)
        run.epoch, run.step = snapshot.epoch, snapshot.step
        run.totals = snapshot.totals.times(1 / processes.count)
        run.steps = self.recipe.steps if snapshot.steps is None else snapshot.steps
        replace_network_(run, run.method.restore(run, snapshot.method))
        run.bare.load_state_dict(snapshot.model)
        run.optimizer.load_state_dict(snapshot.optimizer)
        if run.average is not None and snapshot.average is not None:
            run.average.model.load_state_dict(snapshot.average)
        scaler = self.recipe.accelerator.scaler
        if scaler is not None and snapshot.scaler is not None:
            scaler.load_state_dict(dict(snapshot.scaler))
        self.before, self.best, self.reports = snapshot.before, snapshot.best, snapshot.reports
        self.hits = unpacked(snapshot.hits, len(self.recipe.images))
        if snapshot.seen is not None:  # that of the main process, which alone saves
            run.seen = (snapshot.seen * processes.is_main).to(run.device)
        self._write_logs()
        return True

    def tell_to(self, tell: Callable[[EpochReport], None]) -> None:
        """Tell an epoch from now on, after those that there are."""
        for report in self.reports:
            tell(report)
        self._tell = tell

    def _check_steps(self, snapshot: Snapshot) -> None:
        """Raise `InputError` where steps that are counted in epochs would be other ones."""
        earlier, now = snapshot.steps_per_epoch, self.recipe.steps_per_epoch
        if earlier not in {None, now}:
            raise InputError(
                f"the run cannot be resumed in {self.recipe.processes.count} processes: an epoch "
                f"had {earlier} steps, and would have {now}",
                code="RESUME_MISMATCH",
                where=str(self.place.folder),
                hint="start as many processes as before: a last batch that is too small for them "
                "is left out",
            )

    def train(self) -> None:
        """Take the rounds that are left.

        Raises `InterruptedRunError` after Ctrl-C, with the state saved, `InputError` (`DIVERGED`)
        and `DeviceError` (`LOST_PROCESS`) with the last good state left as it was.
        """
        run = self.run
        try:
            if self.before is None:
                self.before = self.score()
                self._remember(self.before)
                if not run.method.saves_between_steps:
                    self.save()
            while not (self.is_done or self.is_spent):
                self._train_one_round()
        except KeyboardInterrupt:
            self._interrupted()
        except torch.OutOfMemoryError as error:
            smaller = max(self.recipe.options.batch_size // 2, 1)
            raise InputError(
                f"the device has too little memory for batches of {smaller * 2}",
                code="OUT_OF_MEMORY",
                hint=f"train with smaller batches: --batch-size {smaller} (and --accumulate 2 for "
                "the same updates)",
            ) from error
        except RuntimeError as error:
            if self.recipe.options.compile and type(error).__module__.startswith(COMPILER):
                raise InputError(
                    f"the model cannot be compiled: {str(error).strip().splitlines()[0]}",
                    code="NOT_COMPILED",
                    hint="leave --compile out",
                ) from error
            if not is_lost(error):
                raise
            raise lost_process(self._way_on()) from error

    def finish(self) -> PruningPlan | None:
        """Put the weights of the best round into the network; return what the method removed."""
        assert self.best is not None
        self.run.bare.load_state_dict(self.best.tensors)
        return self.run.method.finish(self.run)

    def score(self) -> Evaluation:
        """Evaluate the network as it would be given back now on the held-out images."""
        recipe, accelerator = self.recipe, self.recipe.accelerator
        with accelerator.autocast():
            return recipe.task.evaluate(
                self.run.result,
                self.held_out,
                input=recipe.input,
                device=accelerator.device,
                processes=recipe.processes,
                progress=recipe.progress,
            )

    def _learned(self) -> torch.Tensor:
        """Return which training images the network has, now or as it was trained on them."""
        if self.run.seen is None:
            return self._looked_at(plan_batches(len(self.recipe.images), EVALUATION_BATCH))
        seen = self.recipe.processes.total(self.run.seen)
        late = left_over(seen.cpu())
        right = seen.cpu() == TRAINED_RIGHT
        return right | self._looked_at(late) if late else right

    def _looked_at(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return which images of some batches the network has right now."""
        recipe, accelerator = self.recipe, self.recipe.accelerator
        with accelerator.autocast():
            hits = image_hits(
                self.run.bare,
                recipe.images,
                recipe.processes.share(batches),
                input=recipe.input,
                device=accelerator.device,
                progress=recipe.progress,
            )
        return recipe.processes.total(hits.to(torch.uint8)).bool()

    def save(self) -> None:
        """Write the state, from the main process only."""
        folder = self.place.folder
        if folder is None or self.before is None or not self.recipe.accelerator.is_main_process:
            return
        run, scaler = self.run, self.recipe.accelerator.scaler
        snapshot = Snapshot(
            settings=self.place.settings,
            epoch=run.epoch,
            step=run.step,
            totals=run.totals.times(self.recipe.processes.count),
            before=self.before,
            reports=self.reports,
            best=self.best,
            model=run.bare.state_dict(),
            optimizer=run.optimizer.state_dict(),
            average=None if run.average is None else run.average.model.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            method=run.method.state(),
            steps=run.steps,
            steps_per_epoch=self.recipe.steps_per_epoch,
            hits=packed(self.hits),
            seen=run.seen,
        )
        save_snapshot(snapshot, folder)

    def _save_within(self) -> None:
        """Write the state in the middle of a round, where the method allows it."""
        if self.run.method.saves_between_steps:
            self.save()

    def _train_one_round(self) -> None:
        run, recipe = self.run, self.recipe
        options = recipe.options
        in_training = options.record_learnability_mode == "training"
        if options.record_learnability and in_training and run.seen is None:
            run.seen = torch.zeros(len(recipe.images), dtype=torch.uint8, device=run.device)
        end = self._scored_until(rounds=1)
        train_round(run, end, save=self._save_within, save_seconds=self.place.save_seconds)
        self._share_buffers()
        evaluation = self.score()
        check_finite(evaluation.loss, run)
        learned = [self._learned()] if options.record_learnability else []
        report = self._report(evaluation)
        with held_interrupts():
            run.between_steps = False
            self.hits += learned
            self.reports = (*self.reports, report)
            self._remember(evaluation)
            if run.step >= recipe.steps_per_epoch:
                run.epoch, run.step = run.epoch + 1, 0
            run.totals, run.seen = Totals(), None
            replace_network_(run, run.method.after_round(run, report))
            self.save()
            self._write_logs()
            self._tell(report)
            run.between_steps = True

    def _scored_until(self, *, rounds: int = 0) -> int:
        """Return the steps after which the last round that was scored ended, or `rounds` later.

        A run that is stopped between its last step and the score has something left to do.
        """
        length = self.recipe.round_steps or self.recipe.steps_per_epoch
        return (len(self.reports) + rounds) * length

    def _share_buffers(self) -> None:
        """Give every process the main one's buffers: each has statistics of its own images."""
        models = [self.run.bare] if self.run.average is None else [self.run.bare, self.run.result]
        for buffer in (buffer for model in models for buffer in model.buffers()):
            buffer.copy_(self.recipe.processes.from_main(buffer))

    def _report(self, evaluation: Evaluation) -> EpochReport:
        run = self.run
        processes, totals = self.recipe.processes, run.totals
        self.recipe.images.hear(processes)
        shares = torch.zeros(1 + processes.count, dtype=torch.float64)
        shares[0], shares[1 + processes.index] = totals.loss, totals.images
        loss, *each = processes.total(shares).tolist()
        images = sum(each)
        if not images:
            raise InputError("no image could be read", code="NO_IMAGES")
        return EpochReport(
            epoch=len(self.reports) + 1,
            train_loss=loss / images,
            accuracy=evaluation.accuracy,
            loss=evaluation.loss,
            learning_rate=learning_rate(run, run.taken - 1),
            images_per_second=images / max(run.totals.seconds, 1e-9),
            seconds=run.totals.seconds,
            precision=precision_of(self.recipe.accelerator),
            shares=tuple(round(count) for count in each) if processes.count > 1 else (),
            facts=run.method.facts(),
        )

    def _remember(self, evaluation: Evaluation) -> None:
        run, best = self.run, self.best
        if not run.method.settled(run):
            return  # a network that is not yet what was asked for is no result
        if best is not None:
            old = best.evaluation
            if (evaluation.accuracy, -evaluation.loss) <= (old.accuracy, -old.loss):
                return
        tensors = {
            name: value.to("cpu", copy=True) for name, value in run.result.state_dict().items()
        }
        self.best = Best(len(self.reports), evaluation, tensors)

    def _write_logs(self) -> None:
        own = self.run.method.log_rows()
        rows = self.reports if own is None else own
        if rows and self.place.folder is not None and self.recipe.accelerator.is_main_process:
            self.log = write_logs(rows, self.place.folder)

    def _way_on(self) -> str:
        """Say how to go on with a run that was stopped."""
        where = self.place.folder
        saved = where is not None and (where / STATE_FILE).exists()
        return "resume it: run the same command with --resume" if saved else "nothing was saved"

    def _interrupted(self) -> NoReturn:
        where, run, recipe = self.place.folder, self.run, self.recipe
        # A torn step or a loss of NaN is not kept: the last state that was saved stands.
        if run.between_steps and math.isfinite(run.totals.loss):
            with held_interrupts():
                self._save_within()
        raise InterruptedRunError(
            f"stopped in epoch {run.epoch + 1} of {recipe.options.epochs}"
            if recipe.round_steps is None
            else f"stopped after {run.taken} of {run.steps} updates",
            code="INTERRUPTED",
            where=str(where) if where else None,
            hint=self._way_on(),
        ) from None
