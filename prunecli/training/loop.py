"""One epoch of training, in small steps that can be stopped between any two."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.data import ImageSet, plan_batches
from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.evaluation.images import check_outputs
from prunecli.evaluation.outputs import class_logits
from prunecli.progress import Progress, Step
from prunecli.training.interrupt import held_interrupts
from prunecli.training.sampling import Sampling, with_positions
from prunecli.training.state import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from accelerate import Accelerator

    from prunecli.architectures.reference import InputSpec
    from prunecli.options import FinetuneOptions
    from prunecli.training.augment import Augmentation
    from prunecli.training.average import ExponentialAverage
    from prunecli.training.losses import Objective
    from prunecli.training.masked_weights import Zeros
    from prunecli.training.schedules import Schedule

REPORT_SECONDS = 0.2
"""How often progress is reported; on a GPU every report waits for the work that was queued."""


DRAWN = -1
"""Where a step's number would be, in the seed of what a whole epoch is drawn from."""


@dataclass(frozen=True)
class Teacher:
    """A network in eval mode whose outputs are imitated, and how it takes its input."""

    model: nn.Module
    input: InputSpec
    memory_format: torch.memory_format


@dataclass(frozen=True)
class Recipe:
    """Everything about a run that stays the same from its first step to its last."""

    options: FinetuneOptions
    input: InputSpec
    images: ImageSet
    augmentation: Augmentation
    schedule: Schedule
    peak: float
    objective: Objective
    teacher: Teacher | None
    accelerator: Accelerator
    steps_per_epoch: int
    progress: Progress
    sampling: Sampling | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.options.epochs * self.steps_per_epoch


@dataclass
class Run:
    """Everything about a run that changes with its steps.

    `seen` says of every image whether this epoch has not trained on it (0), had it wrong (1) or
    right (2); None where that is not asked for.
    """

    model: nn.Module
    bare: nn.Module
    memory_format: torch.memory_format
    optimizer: Any
    average: ExponentialAverage | None
    zeros: Zeros | None = None
    epoch: int = 0
    step: int = 0
    totals: Totals = field(default_factory=Totals)
    between_steps: bool = True
    seen: Tensor | None = None


def derive_seed(seed: int, *parts: int) -> int:
    """Return a 63-bit seed for one use, the same on every machine.

    Every draw of a run has its own, so that a run resumes exactly without a saved random state.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def epoch_batches(
    count: int, batch_size: int, *, seed: int, epoch: int, shard: tuple[int, int] = (0, 1)
) -> tuple[Tensor, ...]:
    """Return the shuffled positions of every batch of an epoch that `shard` = (rank, of) sees.

    Shards of a batch are equally large. A last batch that leaves a shard with a single image is
    dropped, because batch norm has no statistics of one.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    batches = plan_batches(count, batch_size, generator=generator)
    rank, processes = shard
    if len(batches) > 1 and len(batches[-1]) < min(2 * processes, batch_size):
        batches = batches[:-1]
    return tuple(batch[: len(batch) // processes * processes][rank::processes] for batch in batches)


def train_epoch(recipe: Recipe, run: Run, *, save: Callable[[], None], save_seconds: float) -> None:
    """Take the remaining steps of the run's current epoch; the sums over it are `run.totals`."""
    batches = drawn_batches(recipe, run.epoch)
    meter = Meter(recipe, run)
    saved = time.monotonic()
    run.model.train()
    try:
        start = run.step
        for at, positions, images, labels in with_positions(recipe.images, batches[start:]):
            run.step = start + at  # past batches of which nothing could be read
            weights = None if recipe.sampling is None else recipe.sampling.weights_of(positions)
            with held_interrupts():
                run.between_steps = False
                loss, right = train_step(recipe, run, images, labels, weights)
                meter.add(loss, right.sum(), len(labels))
                if run.seen is not None:
                    run.seen[positions.to(run.seen.device)] = 1 + right.to(torch.uint8)
                run.step += 1
                run.between_steps = True
            if meter.due(last=run.step == len(batches)):
                meter.report()
                if time.monotonic() - saved > save_seconds:
                    save()
                    saved = time.monotonic()
    finally:
        meter.flush()


def drawn_batches(recipe: Recipe, epoch: int) -> tuple[Tensor, ...]:
    """Return the positions of every batch of an epoch that this process trains on.

    Where images are not drawn once each, the places of an epoch are shuffled as ever, and what is
    drawn fills them: the steps are the same.
    """
    options, accelerator = recipe.options, recipe.accelerator
    places = epoch_batches(
        len(recipe.images),
        options.batch_size,
        seed=options.seed,
        epoch=epoch,
        shard=(accelerator.process_index, accelerator.num_processes),
    )
    if recipe.sampling is None:
        return places
    generator = torch.Generator().manual_seed(derive_seed(options.seed, epoch, DRAWN))
    drawn = recipe.sampling.draw(epoch, generator)
    return tuple(drawn[batch] for batch in places)


def train_step(
    recipe: Recipe, run: Run, images: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Train on one batch of n uint8 images, `weights` [n] of them in the loss.

    Return the loss, a scalar, and whether each image was right [n], both on the device.
    """
    accelerator, options = recipe.accelerator, recipe.options
    draws = derive_seed(options.seed, run.epoch, run.step, accelerator.process_index)
    torch.manual_seed(draws)  # dropout and its like draw from the global generator
    generator = torch.Generator().manual_seed(draws)
    images = images.to(accelerator.device, non_blocking=True)
    labels = labels.to(accelerator.device, non_blocking=True)
    images = recipe.augmentation(images, generator)
    step = run.epoch * recipe.steps_per_epoch + run.step
    set_learning_rate(run.optimizer, recipe.peak * recipe.schedule(step, recipe.steps))
    if run.zeros is not None:
        run.zeros.before_step(step)
    pixels = normalise(images, recipe.input, memory_format=run.memory_format)
    with accelerator.autocast():
        taught = teach(recipe.teacher, images)
        output = run.model(pixels)
    logits, auxiliary = class_logits(output)
    check_teacher(logits, taught)
    if weights is not None:
        weights = weights.to(accelerator.device, non_blocking=True)
    loss = recipe.objective(logits, auxiliary, labels, taught, weights)
    run.optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    if run.zeros is not None:
        run.zeros.mask_gradients()
    if options.clip > 0:
        accelerator.clip_grad_norm_(run.bare.parameters(), options.clip)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.bare, step)
    if run.zeros is not None:
        run.zeros.enforce(None if run.average is None else run.average.model)
    return loss.detach(), logits.detach().argmax(1) == labels


def teach(teacher: Teacher | None, images: Tensor) -> Tensor | None:
    """Return the teacher's logits for the batch that the student sees, or None without teacher."""
    if teacher is None:
        return None
    with torch.no_grad():
        pixels = normalise(images, teacher.input, memory_format=teacher.memory_format)
        return class_logits(teacher.model(pixels))[0]


def check_teacher(logits: Tensor, taught: Tensor | None) -> None:
    """Raise `TEACHER_MISMATCH` unless both networks tell the same number of classes apart."""
    if taught is not None:
        try:
            check_outputs(taught, logits.shape[1])
        except InputError as error:
            raise InputError(
                f"the teacher tells {taught.shape[1]} classes apart, the network {logits.shape[1]}",
                code="TEACHER_MISMATCH",
                hint="a teacher has the classes of its student",
            ) from error


def set_learning_rate(optimizer: Any, learning_rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


class Meter:
    """Adds up an epoch on the device, and looks at the sums now and then.

    Reading a number off a GPU waits for all work queued before it, so that is not done each step.
    """

    def __init__(self, recipe: Recipe, run: Run) -> None:
        self.recipe = recipe
        self.run = run
        self.device = recipe.accelerator.device
        self.started = time.monotonic()
        self.reported = self.started
        self._clear()

    def _clear(self) -> None:
        self.loss = torch.zeros((), device=self.device)
        self.hits = torch.zeros((), device=self.device, dtype=torch.int64)
        self.images = 0

    def add(self, loss: Tensor, hits: Tensor, images: int) -> None:
        """Take in one step: the mean loss over `images` images, and how many were right."""
        self.loss += loss * images
        self.hits += hits
        self.images += images

    def due(self, *, last: bool) -> bool:
        """Say whether it is time to look at the sums."""
        return last or time.monotonic() - self.reported > REPORT_SECONDS

    def flush(self) -> None:
        """Move the sums into the run's totals."""
        now = time.monotonic()
        totals = self.run.totals
        self.run.totals = Totals(
            loss=totals.loss + float(self.loss),
            hits=totals.hits + int(self.hits),
            images=totals.images + self.images,
            seconds=totals.seconds + now - self.reported,
        )
        self.reported = now
        self._clear()

    def report(self) -> None:
        """Move the sums and report them; raise `DIVERGED` for a loss of NaN."""
        self.flush()
        check_finite(self.run.totals.loss, self.recipe, epoch=self.run.epoch, step=self.run.step)
        done = self.run.epoch * self.recipe.steps_per_epoch + self.run.step
        self.recipe.progress(Step("train", done, self.recipe.steps, self.facts()))

    def facts(self) -> Mapping[str, float | str]:
        """Return what people want to see beside the bar."""
        totals = self.run.totals
        images = max(totals.images, 1)
        rate = totals.images / max(totals.seconds, 1e-9)
        return {
            "epoch": f"{self.run.epoch + 1}/{self.recipe.options.epochs}",
            "loss": totals.loss / images,
            "accuracy": totals.hits / images,
            "images/s": rate * self.recipe.accelerator.num_processes,
        }


def check_finite(value: float, recipe: Recipe, *, epoch: int, step: int) -> None:
    """Raise `DIVERGED`, with what to change, for a loss that is no longer a number."""
    if math.isfinite(value):
        return
    advice = [f"lower the learning rate: --lr {recipe.peak / 10:g} instead of {recipe.peak:g}"]
    if recipe.options.clip <= 0:
        advice.append("clip the gradients: --clip 1")
    if recipe.accelerator.mixed_precision != "no":
        advice.append("switch mixed precision off: --amp no")
    raise InputError(
        f"the loss is no longer a number in epoch {epoch + 1}, by step {step}",
        code="DIVERGED",
        hint="; or ".join(advice),
    )
