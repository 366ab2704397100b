"""Train a network for some epochs and give back the best of them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.data import DataSource, ImageSet, load_split
from prunecli.errors import InputError, InterruptedRunError
from prunecli.options import FinetuneOptions
from prunecli.preflight.training import check_training
from prunecli.processes import joined
from prunecli.progress import Progress, silent
from prunecli.sparse.allocation import WEIGHT_ALLOCATIONS
from prunecli.sparse.schedules import SPARSITY_SCHEDULES, Gradual
from prunecli.training.augment import augmentation_for
from prunecli.training.choose_task import Taught, check_task, choose_task, classes_task
from prunecli.training.devices import check_device, make_accelerator
from prunecli.training.freezing import check_frozen, freeze_
from prunecli.training.hits import check_mode
from prunecli.training.loop import epoch_batches
from prunecli.training.masked_weights import MaskedWeights
from prunecli.training.optimizers import OPTIMIZERS, peak_rate
from prunecli.training.placing import placed, start_run
from prunecli.training.recipe import Recipe
from prunecli.training.regularizers import REGULARIZERS, check_regularizer, make_regularizer
from prunecli.training.result import FinetuneResult, result_of
from prunecli.training.sampling import SAMPLINGS, make_sampling
from prunecli.training.schedules import SCHEDULES
from prunecli.training.session import Place, Session
from prunecli.training.task import Teacher
from prunecli.training.trackers import tracking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from accelerate import Accelerator

    from prunecli.architectures.reference import InputSpec
    from prunecli.sparse.layers import WeightLayer
    from prunecli.training.method import TrainingMethod
    from prunecli.training.task import Task

SAVE_SECONDS = 300.0
"""How much of an epoch a kill may cost; every epoch's end is saved as well."""

FEWEST_HELD_OUT = 256
"""Held-out images that a limited run still looks at, where there are as many."""


def finetune(
    model: nn.Module,
    source: DataSource,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    options: FinetuneOptions | None = None,
    teacher: nn.Module | None = None,
    teacher_input: InputSpec | None = None,
    teacher_classes: int | None = None,
    masks: Mapping[str, Tensor] | None = None,
    layers: Sequence[WeightLayer] = (),
    method: TrainingMethod | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    save_seconds: float = SAVE_SECONDS,
    progress: Progress = silent,
) -> FinetuneResult:
    """Train a copy of `model` on the training images, the best epoch chosen on held-out ones.

    Where none is better than the model before training, that is what is given back.

    With a `teacher` the loss is `distillation_loss`; with `options.loss` `outputs` its outputs are
    followed and no label is looked at (`teacher_classes`: how many its file tells apart). What
    `masks` leave out stays zero; with `options.sparsity` the weights of `layers` are zeroed along
    the way. Instead of these a `method` may prune while the network trains, or
    `options.regularizer` perturb it. `run_dir` holds the log and a state from which `resume` goes
    on exactly. Raises `InputError` (`BAD_OPTION`, `DIVERGED`, `NO_SUCH_LAYER`, `NO_TEACHER`,
    `TEACHER_MISMATCH`, `RESUME_MISMATCH`, `TOO_FEW_IMAGES`, and those of the data) and
    `InterruptedRunError` after Ctrl-C.
    """
    options = options or FinetuneOptions()
    check_options(options)
    if method is not None and (masks or options.sparsity or options.regularizer):
        raise InputError(
            "masked weights and regularisers are methods of their own, and another one was given",
            code="BAD_OPTION",
            hint="train with one of them",
        )
    check_frozen(model, options.freeze)
    unreached = check_regularizer(options, model, masks=masks)
    with reproducible(), interruptible():
        accelerator = make_accelerator(options.amp, options.device)
        if not accelerator.is_main_process:
            progress = silent
        train, held_out, warnings = load_images(source, input, options, progress)
        warnings.extend(unreached)
        check_task(model, train, held_out, input=input, options=options)
        student = trainable_copy(model)
        freeze_(student, options.freeze)
        teaching = make_teacher(teacher, teacher_input or input, accelerator)
        recipe = make_recipe(
            source,
            train,
            input=input,
            options=options,
            teacher=teaching,
            accelerator=accelerator,
            task=choose_task(
                student, Taught(teaching, teacher_classes), train, input=input, options=options
            ),
            progress=progress,
        )
        settings = _settings(recipe, student, teacher)
        place = Place(ready_folder(run_dir), save_seconds, settings)
        zeros = _masked_weights(recipe, masks or {}, layers)
        run = start_run(student, recipe, method or zeros or make_regularizer(options))
        session = Session(run, held_out=held_out, place=place)
        if resume and not session.restore():
            warnings.append(f"nothing to resume in {run_dir}: started from the beginning")
        # After what may be refused: trackers begin anew, and what an earlier run told is gone.
        with tracking(accelerator, options.log, settings, run_dir) as tell:
            session.tell_to(tell)
            session.train()
        return result_of(session, warnings, zeros)


def make_recipe(
    source: DataSource,
    images: ImageSet,
    *,
    input: InputSpec,  # noqa: A002
    options: FinetuneOptions,
    teacher: Teacher | None,
    accelerator: Accelerator,
    task: Task | None = None,
    progress: Progress = silent,
    round_steps: int | None = None,
) -> Recipe:
    """Return everything about a run on `images` that stays the same.

    Without a `task` of its own it learns classes, as labels and the `teacher` say.
    """
    return Recipe(
        options=options,
        input=input,
        images=images,
        augmentation=augmentation_for(options.augment, source, input),
        schedule=SCHEDULES.get(options.schedule),
        peak=peak_rate(options),
        task=task or classes_task(options, teacher),
        accelerator=accelerator,
        steps_per_epoch=_steps_per_epoch(images, options, accelerator),
        progress=progress,
        sampling=make_sampling(options, images),
        round_steps=round_steps,
    )


def check_options(options: FinetuneOptions) -> None:
    """Raise `InputError` for a choice that cannot be trained with."""
    check_mode(options.record_learnability_mode)
    OPTIMIZERS.get(options.optimizer)
    SCHEDULES.get(options.schedule)
    SPARSITY_SCHEDULES.get(options.sparsity_schedule)
    WEIGHT_ALLOCATIONS.get(options.allocation)
    if options.regularizer is not None:
        REGULARIZERS.get(options.regularizer)
    check_training(options)
    check_device(options.device)


PLAIN = FinetuneOptions()

NEWER = ("warmup", "accumulate", "freeze", "compile", "loss", "match", "new_head", "first_rate")
"""Options that states of older runs do not have: they were trained as is the default."""

REGULARIZING = ("p", "q", "target_fraction")
"""The options that a regulariser follows."""


def trainable_copy(model: nn.Module) -> nn.Module:
    """Return a float32 copy; a network that is wholly frozen, as loaded ones may be, is thawed."""
    student = copy.deepcopy(model).float()
    if not any(parameter.requires_grad for parameter in student.parameters()):
        student.requires_grad_(requires_grad=True)
    return student


def tensors_digest(model: nn.Module | None) -> str:
    """Return 16 hexadecimal digits for the names, shapes and values of a network."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items() if model is not None else ():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        flat = tensor.detach().to("cpu").contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()[:16]


def load_images(
    source: DataSource,
    input_spec: InputSpec,
    options: FinetuneOptions,
    progress: Progress,
    *,
    scored: int | None = None,
) -> tuple[ImageSet, ImageSet, list[str]]:
    """Return the images to train on, those held out from them (`scored` of them), and warnings."""

    def load(split: str, limit: int | None) -> ImageSet:
        return load_split(
            source,
            split,
            input=input_spec,
            seed=options.seed,
            limit=limit,
            held_out=options.held_out,
            progress=progress,
        )

    limit = options.limit
    train = load("train", limit)
    fewer = limit and max(round(limit * options.held_out), FEWEST_HELD_OUT)
    held_out = load("held_out", scored or fewer)
    warnings = list(dict.fromkeys((*train.warnings, *held_out.warnings)))
    if len(train) < 2:
        raise InputError(
            f"there are too few images to train on: {len(train)}",
            code="TOO_FEW_IMAGES",
            where=str(source.path),
            hint="training takes two images at least",
        )
    if not len(held_out):
        warnings.append("no image is held out: the best epoch is chosen on the training images")
        held_out = train
    return train, held_out, warnings


def _steps_per_epoch(images: ImageSet, options: FinetuneOptions, accelerator: Accelerator) -> int:
    shard = (accelerator.process_index, accelerator.num_processes)
    return len(epoch_batches(len(images), options.update_size, seed=0, epoch=0, shard=shard))


def make_teacher(
    model: nn.Module | None, input_spec: InputSpec, accelerator: Accelerator
) -> Teacher | None:
    """Return a frozen copy of the teacher on its device; None for none."""
    if model is None:
        return None
    taught = copy.deepcopy(model).float().eval().requires_grad_(requires_grad=False)
    bare, memory_format = placed(taught, input_spec, accelerator)
    return Teacher(bare, input_spec, memory_format)


def _settings(recipe: Recipe, student: nn.Module, teacher: nn.Module | None) -> dict[str, Any]:
    sampling = recipe.sampling
    return {
        **dataclasses.asdict(recipe.options),
        "freeze": list(recipe.options.freeze),
        # As runs from before there were regularisers say it: nothing.
        **({} if recipe.options.regularizer else dict.fromkeys(REGULARIZING)),
        "match": list(recipe.options.match),
        # What a run that goes on may change, and what runs from before do not say.
        **dict.fromkeys(("patience", "log", "device", "workers")),
        **{name: None for name in NEWER if getattr(recipe.options, name) == getattr(PLAIN, name)},
        # What the records say, not where they lie.
        **{
            name: sampling.digest if sampling and getattr(recipe.options, name) else None
            for name in SAMPLINGS
        },
        "classes": list(recipe.images.classes),
        "images": len(recipe.images),
        "network": tensors_digest(student),
        "teacher": tensors_digest(teacher),
        "precision": recipe.accelerator.mixed_precision,
    }


def ready_folder(run_dir: Path | None) -> Path | None:
    """Return the folder of a run, made where it is not there yet; the first process writes."""
    if run_dir is not None and joined().is_main:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the folder for the run cannot be made: {error.strerror}",
                code="UNWRITABLE_OUTPUT",
                where=str(run_dir),
                hint="choose another place, or free some space",
            ) from error
    return run_dir


def _masked_weights(
    recipe: Recipe, masks: Mapping[str, Tensor], layers: Sequence[WeightLayer]
) -> MaskedWeights | None:
    """Return what holds weights at zero; None where nothing does."""
    options = recipe.options
    if options.sparsity is None:
        return MaskedWeights(masks) if masks else None
    total = sum(layer.size for layer in layers)
    zero = sum(int((~masks[layer.name]).sum()) for layer in layers if layer.name in masks)
    if not total or round(options.sparsity * total) <= zero:
        raise InputError(
            f"--sparsity {options.sparsity:g} zeroes nothing: {zero} of {total} weights are zero",
            code="ALREADY_WITHIN_BUDGET",
            hint="ask for a higher --sparsity, or leave it out to keep the zeros that are there",
        )
    gradual = Gradual(
        initial=zero / total,
        final=options.sparsity,
        end=min(round(options.sparsity_until * recipe.steps), recipe.steps - 1),
        every=options.sparsity_every,
        schedule=SPARSITY_SCHEDULES.get(options.sparsity_schedule),
    )
    return MaskedWeights(masks, gradual=gradual, layers=layers, allocation=options.allocation)


@contextmanager
def reproducible() -> Iterator[None]:
    """Leave the caller's random state alone, and take convolutions that repeat themselves."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Say it in our words when Ctrl-C comes while there is nothing to save."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "stopped before training began",
            code="INTERRUPTED",
            hint="nothing was saved, start again with the same command",
        ) from None
