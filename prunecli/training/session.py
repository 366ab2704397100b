"""The life of one run: start or resume, train epoch by epoch, remember the best, stop safely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from prunecli.data import ImageSet, plan_batches
from prunecli.errors import InputError, InterruptedRunError
from prunecli.evaluation.images import Tally, tally_batches, to_evaluation
from prunecli.report import EpochReport, Evaluation
from prunecli.training.hits import EVALUATION_BATCH, image_hits, left_over, packed, unpacked
from prunecli.training.interrupt import held_interrupts
from prunecli.training.loop import Recipe, Run, check_finite, train_epoch
from prunecli.training.state import (
    STATE_FILE,
    Best,
    Snapshot,
    Totals,
    load_snapshot,
    save_snapshot,
    write_logs,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


TRAINED_RIGHT = 2
"""What `Run.seen` says of an image that was right as it was trained on."""


@dataclass(frozen=True)
class Place:
    """Where a run keeps its state (None: nowhere), how often, and what must not change there."""

    folder: Path | None
    save_seconds: float
    settings: Mapping[str, Any]


class Session:
    """A run with the memory that outlives it."""

    def __init__(self, recipe: Recipe, run: Run, *, held_out: ImageSet, place: Place) -> None:
        self.recipe = recipe
        self.run = run
        self.held_out = held_out
        self.place = place
        self.before: Evaluation | None = None
        self.reports: tuple[EpochReport, ...] = ()
        self.best: Best | None = None
        self.log: Path | None = None
        self.hits: list[torch.Tensor] = []

    def restore(self) -> bool:
        """Go back to the saved state; return False when there is none."""
        folder = self.place.folder
        snapshot = load_snapshot(folder, settings=self.place.settings) if folder else None
        if snapshot is None:
            return False
        run = self.run
        run.bare.load_state_dict(snapshot.model)
        run.optimizer.load_state_dict(snapshot.optimizer)
        if run.average is not None and snapshot.average is not None:
            run.average.model.load_state_dict(snapshot.average)
        if run.zeros is not None and snapshot.zeros is not None:
            run.zeros.restore(snapshot.zeros)
        scaler = self.recipe.accelerator.scaler
        if scaler is not None and snapshot.scaler is not None:
            scaler.load_state_dict(dict(snapshot.scaler))
        run.epoch, run.step, run.totals = snapshot.epoch, snapshot.step, snapshot.totals
        self.before, self.best, self.reports = snapshot.before, snapshot.best, snapshot.reports
        self.hits = unpacked(snapshot.hits, len(self.recipe.images))
        if snapshot.seen is not None:  # that of the main process, which alone saves
            own = self.recipe.accelerator.is_main_process
            run.seen = (snapshot.seen * own).to(self._device())
        self._write_logs()
        return True

    def train(self) -> None:
        """Take the epochs that are left.

        Raises `InterruptedRunError` after Ctrl-C, with the state saved, and `InputError`
        (`DIVERGED`) with the last good state left as it was.
        """
        try:
            if self.before is None:
                self.before = self.score()
            while self.run.epoch < self.recipe.options.epochs:
                self._train_one_epoch()
        except KeyboardInterrupt:
            self._interrupted()
        except torch.OutOfMemoryError as error:
            smaller = max(self.recipe.options.batch_size // 2, 1)
            raise InputError(
                f"the device has too little memory for batches of {smaller * 2}",
                code="OUT_OF_MEMORY",
                hint=f"train with smaller batches: --batch-size {smaller}",
            ) from error

    def score(self) -> Evaluation:
        """Evaluate the network as it would be given back now on the held-out images."""
        recipe, accelerator = self.recipe, self.recipe.accelerator
        model = self.run.bare if self.run.average is None else self.run.average.model
        batches = plan_batches(len(self.held_out), EVALUATION_BATCH)
        share = batches[accelerator.process_index :: accelerator.num_processes]
        with accelerator.autocast():
            tally = tally_batches(
                model,
                self.held_out,
                share,
                input=recipe.input,
                device=accelerator.device,
                progress=recipe.progress,
            )
        fields = (tally.loss, tally.top5, tally.hits, tally.images)
        return to_evaluation(
            Tally(*(self._over_processes(field) for field in fields)), self.held_out
        )

    def _learned(self) -> torch.Tensor:
        """Return which training images the network has, now or as it was trained on them."""
        if self.run.seen is None:
            return self._looked_at(plan_batches(len(self.recipe.images), EVALUATION_BATCH))
        seen = self._over_processes(self.run.seen)
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
                batches[accelerator.process_index :: accelerator.num_processes],
                input=recipe.input,
                device=accelerator.device,
                progress=recipe.progress,
            )
        return self._over_processes(hits.to(torch.uint8)).bool()

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
            totals=run.totals,
            before=self.before,
            reports=self.reports,
            best=self.best,
            model=run.bare.state_dict(),
            optimizer=run.optimizer.state_dict(),
            average=None if run.average is None else run.average.model.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
            zeros=None if run.zeros is None else run.zeros.state(),
            hits=packed(self.hits),
            seen=run.seen,
        )
        save_snapshot(snapshot, folder)

    def _train_one_epoch(self) -> None:
        run = self.run
        options = self.recipe.options
        in_training = options.record_learnability_mode == "training"
        if options.record_learnability and in_training and run.seen is None:
            count = len(self.recipe.images)
            run.seen = torch.zeros(count, dtype=torch.uint8, device=self._device())
        train_epoch(self.recipe, run, save=self.save, save_seconds=self.place.save_seconds)
        evaluation = self.score()
        check_finite(evaluation.loss, self.recipe, epoch=run.epoch, step=run.step)
        learned = [self._learned()] if options.record_learnability else []
        with held_interrupts():
            self.hits += learned
            self.reports = (*self.reports, self._report(evaluation))
            self._remember(evaluation)
            run.epoch, run.step, run.totals = run.epoch + 1, 0, Totals()
            run.seen = None
            self.save()
            self._write_logs()

    def _report(self, evaluation: Evaluation) -> EpochReport:
        run, recipe = self.run, self.recipe
        sums = torch.tensor([run.totals.loss, run.totals.images], dtype=torch.float64)
        loss, images = self._over_processes(sums).tolist()
        last = (run.epoch + 1) * recipe.steps_per_epoch - 1
        return EpochReport(
            epoch=run.epoch + 1,
            train_loss=loss / images,
            accuracy=evaluation.accuracy,
            loss=evaluation.loss,
            learning_rate=recipe.peak * recipe.schedule(last, recipe.steps),
            images_per_second=images / max(run.totals.seconds, 1e-9),
            seconds=run.totals.seconds,
            sparsity=None if run.zeros is None else run.zeros.sparsity,
        )

    def _remember(self, evaluation: Evaluation) -> None:
        run, best = self.run, self.best
        done = run.epoch * self.recipe.steps_per_epoch + run.step
        if run.zeros is not None and not run.zeros.settled(done):
            return  # an epoch with fewer zeros than asked for is no result
        if best is not None:
            old = best.evaluation
            if (evaluation.accuracy, -evaluation.loss) <= (old.accuracy, -old.loss):
                return
        model = self.run.bare if self.run.average is None else self.run.average.model
        tensors = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
        self.best = Best(self.run.epoch + 1, evaluation, tensors)

    def _device(self) -> torch.device:
        device: torch.device = self.recipe.accelerator.device
        return device

    def _over_processes(self, value: torch.Tensor) -> torch.Tensor:
        accelerator = self.recipe.accelerator
        if accelerator.num_processes == 1:
            return value
        total: torch.Tensor = accelerator.reduce(value.to(accelerator.device), reduction="sum")
        return total.cpu()

    def _write_logs(self) -> None:
        if self.place.folder is not None and self.recipe.accelerator.is_main_process:
            self.log = write_logs(self.reports, self.place.folder)

    def _interrupted(self) -> NoReturn:
        where = self.place.folder
        # A torn step or a loss of NaN is not kept: the last state that was saved stands.
        if self.run.between_steps and math.isfinite(self.run.totals.loss):
            with held_interrupts():
                self.save()
        saved = where is not None and (where / STATE_FILE).exists()
        raise InterruptedRunError(
            f"stopped in epoch {self.run.epoch + 1} of {self.recipe.options.epochs}",
            code="INTERRUPTED",
            where=str(where) if where else None,
            hint="go on with the same command and --resume" if saved else "nothing was saved",
        ) from None
