"""A round of training, in small steps that can be stopped between any two."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunecli.data import plan_batches
from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.lifetime.interrupts import held_interrupts
from prunecli.progress import Step
from prunecli.training.augment import augmented
from prunecli.training.freezing import hold_statistics_
from prunecli.training.method import Batch, TrainingRun
from prunecli.training.placing import replace_network_
from prunecli.training.reading import gather
from prunecli.training.recipe import Recipe, derive_seed
from prunecli.training.sampling import with_positions
from prunecli.training.state import Totals
from prunecli.training.task import Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPORT_SECONDS = 0.2
"""How often progress is reported; on a GPU every report waits for the work that was queued."""


WEIGHTS = "weights are no longer numbers"
"""What is said of weights that have diverged (`check_finite`)."""

DRAWN = -1
"""Where a step's number would be, in the seed of what a whole epoch is drawn from."""


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


def train_round(
    run: TrainingRun, end: int, *, save: Callable[[], None], save_seconds: float
) -> None:
    """Take the steps that are left until `end` are taken, over as many epochs as that takes.

    The sums over them are `run.totals`. A batch of which nothing can be read counts as a step.
    """
    meter = Meter(run)
    timer = Timer(save, save_seconds)
    run.recipe.task.train_(run.model)
    hold_statistics_(run.bare, run.recipe.options.freeze)
    try:
        while run.taken < end:
            if run.step >= run.recipe.steps_per_epoch:
                run.epoch, run.step = run.epoch + 1, 0
            _train_within_epoch(run, end, meter, timer)
    finally:
        meter.flush()


def _train_within_epoch(run: TrainingRun, end: int, meter: Meter, timer: Timer) -> None:
    """Take steps until the epoch ends or `end` are taken."""
    recipe, start = run.recipe, run.step
    stop = min(recipe.steps_per_epoch, start + end - run.taken)
    batches = drawn_batches(recipe, run.epoch)[start:stop]
    for at, positions, images, labels in with_positions(
        recipe.images, batches, gather(recipe, run.epoch)
    ):
        if run.step != start + at:  # past batches of which nothing could be read
            _check_alone(run)
            run.step = start + at
        weights = None if recipe.sampling is None else recipe.sampling.weights_of(positions)
        with held_interrupts():
            run.between_steps = False
            loss, right = train_step(run, images, labels, weights)
            meter.add(loss, right.sum(), len(labels))
            if run.seen is not None:
                run.seen[positions.to(run.seen.device)] = 1 + right.to(torch.uint8)
            run.step += 1
            run.between_steps = True
        if meter.due(last=run.taken == end):
            meter.report()
            timer.save_if_due()
    if run.step != stop:
        _check_alone(run)
        run.step = stop


def _check_alone(run: TrainingRun) -> None:
    """Raise `InputError` for a step of several processes that one of them has no images for."""
    processes = run.recipe.processes
    if processes.count > 1:
        raise InputError(
            f"process {processes.index} of {processes.count} could read none of its images of step "
            f"{run.step + 1} in epoch {run.epoch + 1}",
            code="NO_IMAGES",
            hint="repair or remove the unreadable files, or train with a larger --batch-size",
        )


def drawn_batches(recipe: Recipe, epoch: int) -> tuple[Tensor, ...]:
    """Return the positions of every batch of an epoch that this process trains on.

    Where images are not drawn once each, the places of an epoch are shuffled as ever, and what is
    drawn fills them: the steps are the same.
    """
    options, accelerator = recipe.options, recipe.accelerator
    places = epoch_batches(
        len(recipe.images),
        options.update_size,
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
    run: TrainingRun, images: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Update the weights by n uint8 images, `weights` [n] of them in the loss.

    Return the loss, a scalar, and how right each image was [n], both on the device. Where
    gradients are accumulated, the network sees one part of the images after the other.
    """
    recipe, method = run.recipe, run.method
    accelerator, options = recipe.accelerator, recipe.options
    draws = derive_seed(options.seed, run.epoch, run.step, accelerator.process_index)
    torch.manual_seed(draws)  # dropout and its like draw from the global generator
    generator = torch.Generator().manual_seed(draws)
    images = images.to(accelerator.device, non_blocking=True)
    labels = labels.to(accelerator.device, non_blocking=True)
    images, labels, targets = augmented(recipe.augmentation, images, labels, generator)
    set_learning_rate(run.optimizer, learning_rate(run, run.taken))
    method.before_step(run)
    if weights is not None:
        weights = weights.to(accelerator.device, non_blocking=True)
    run.optimizer.zero_grad(set_to_none=True)
    parts = parts_of(len(images), options.batch_size)
    done = []
    for at, part in enumerate(parts, start=1):
        chosen = None if weights is None else weights[part]
        share = (part.stop - part.start) / len(images)
        done.append(
            _pass(run, images[part], targets[part], chosen, share=share, last=at == len(parts))
        )
    loss = torch.stack([judged.loss for judged in done]).sum()
    logits = torch.cat([judged.output for judged in done])
    scaler = accelerator.scaler
    scale = 1.0 if scaler is None else float(scaler.get_scale())
    method.after_backward(run, Batch(images, labels, logits, loss, scale))
    if options.clip > 0:
        accelerator.clip_grad_norm_(clipped_parameters(run), options.clip)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.bare, run.taken)
    replace_network_(run, method.after_step(run))
    return loss, torch.cat([judged.right for judged in done])


def parts_of(count: int, most: int) -> tuple[slice, ...]:
    """Return where `count` images are divided into as few parts of at most `most` as can be.

    They are about equally large: batch norm has no statistics of a single image that is left over.

    >>> parts_of(7, 3)
    (slice(0, 2, None), slice(2, 4, None), slice(4, 7, None))
    """
    parts = max(math.ceil(count / most), 1)
    ends = [count * at // parts for at in range(parts + 1)]
    return tuple(slice(start, end) for start, end in pairwise(ends))


def _pass(
    run: TrainingRun,
    images: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    *,
    share: float,
    last: bool,
) -> Judged:
    """Add the gradient of a part of the images to what is there; `share` is how much it is of all.

    The last part takes in what the method adds to the loss, and what other processes have added up.
    """
    recipe, accelerator = run.recipe, run.recipe.accelerator
    pixels = normalise(images, recipe.input, memory_format=run.memory_format)
    with nullcontext() if last else accelerator.no_sync(run.model):
        with accelerator.autocast():
            taught = recipe.task.teach(images)
            output = recipe.task.run(run.model, run.bare, pixels)
        judged = recipe.task.judge(output, labels, taught, weights)
        loss = judged.loss if share == 1 else judged.loss * share
        batch = Batch(images, labels, judged.output, loss)
        extra = run.method.extra_loss(run, batch) if last else None
        if extra is not None:
            loss = loss + extra
        accelerator.backward(loss)
    return Judged(loss.detach(), judged.output.detach(), judged.right)


def learning_rate(run: TrainingRun, step: int) -> float:
    """Return the learning rate of a step; one after the planned end is like the last one.

    After a warm-up the schedule spans the steps that are left.
    """
    recipe, at = run.recipe, min(step, run.steps - 1)
    rise = min(round(recipe.options.warmup * recipe.steps_per_epoch), run.steps - 1)
    if at < rise:
        return recipe.peak * recipe.schedule(0, run.steps - rise) * (at + 1) / (rise + 1)
    return recipe.peak * recipe.schedule(at - rise, run.steps - rise)


def clipped_parameters(run: TrainingRun) -> list[Tensor]:
    """Return the parameters whose common norm is clipped: all but those of groups that say not."""
    others = {
        id(parameter)
        for group in run.optimizer.param_groups
        if not group.get("clipped", True)
        for parameter in group["params"]
    }
    return [parameter for parameter in run.bare.parameters() if id(parameter) not in others]


def set_learning_rate(optimizer: Any, learning_rate: float) -> None:
    """Set the learning rate of all parameter groups, each by its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


class Timer:
    """Saves a run when it has not been saved for a while."""

    def __init__(self, save: Callable[[], None], seconds: float) -> None:
        self.save, self.seconds = save, seconds
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        """Save, if that was `seconds` ago."""
        if time.monotonic() - self.saved > self.seconds:
            self.save()
            self.saved = time.monotonic()


class Meter:
    """Adds up an epoch on the device, and looks at the sums now and then.

    Reading a number off a GPU waits for all work queued before it, so that is not done each step.
    """

    def __init__(self, run: TrainingRun) -> None:
        self.run = run
        self.started = time.monotonic()
        self.reported = self.started
        self._clear()

    def _clear(self) -> None:
        # In float64 what is told is the same whenever the sums are looked at; MPS has none.
        device = self.run.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.loss, self.hits = torch.zeros(2, device=device, dtype=dtype)
        self.images = 0

    def add(self, loss: Tensor, hits: Tensor, images: int) -> None:
        """Take in one step: the mean loss over `images` images, and how right they were."""
        self.loss += loss.to(self.loss.dtype) * images
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
            hits=totals.hits + float(self.hits),
            images=totals.images + self.images,
            seconds=totals.seconds + now - self.reported,
        )
        self.reported = now
        self._clear()

    def report(self) -> None:
        """Move the sums and report them; raise `DIVERGED` for a loss of NaN."""
        self.flush()
        run = self.run
        check_finite(run.totals.loss, run)
        run.recipe.progress(Step("train", run.taken, run.steps, self.facts()))

    def facts(self) -> Mapping[str, float | str]:
        """Return what people want to see beside the bar."""
        run, totals = self.run, self.run.totals
        images = max(totals.images, 1)
        rate = totals.images / max(totals.seconds, 1e-9)
        epochs = math.ceil(run.steps / run.recipe.steps_per_epoch)
        return {
            "epoch": f"{run.epoch + 1}/{epochs}",
            "loss": totals.loss / images,
            run.recipe.task.measure: totals.hits / images,
            "images/s": rate * run.recipe.accelerator.num_processes,
            **run.method.facts(),
        }


@torch.no_grad()
def check_weights(run: TrainingRun) -> None:
    """Raise `DIVERGED` for weights or statistics that are no numbers: nothing can be cut by them.

    The loss is looked at now and then only, and would tell of them later.
    """
    tensors = (*run.bare.parameters(), *run.bare.buffers())
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not all(bool(tensor.isfinite().all()) for tensor in floats):
        check_finite(math.nan, run, what=WEIGHTS)


def check_finite(value: float, run: TrainingRun, what: str = "loss is no longer a number") -> None:
    """Raise `DIVERGED`, with what to change, for a value that is no longer a number."""
    recipe = run.recipe
    if math.isfinite(value):
        return
    advice = [f"lower the learning rate: --lr {recipe.peak / 10:g} instead of {recipe.peak:g}"]
    if recipe.options.clip <= 0:
        advice.append("clip the gradients: --clip 1")
    if recipe.accelerator.mixed_precision != "no":
        advice.append("switch mixed precision off: --amp no")
    raise InputError(
        f"the {what} in epoch {run.epoch + 1}, by step {run.step}",
        code="DIVERGED",
        hint="; or ".join(advice),
    )
