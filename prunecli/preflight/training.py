"""What no model can be trained by: numbers out of range, choices that contradict each other."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.options.finetune import OUTPUTS
from prunecli.options.granularity import WEIGHT
from prunecli.options.names import plus
from prunecli.options.shared import NO_TEACHER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from prunecli.options import FinetuneOptions


def check_training(options: FinetuneOptions) -> None:
    """Raise `InputError` (`BAD_OPTION`) for options by which no model can be trained."""
    check_sampling(options)
    _check_place(options)
    if options.granularity != WEIGHT:
        raise InputError(
            f"--granularity {options.granularity} does not grow along a training run",
            code="BAD_OPTION",
            hint=f"zero weights with prunecli prune --granularity {options.granularity} first: "
            "finetune keeps the zeros",
        )
    if options.regularizer is not None and options.sparsity is not None:
        raise InputError(
            f"--sparsity and --regularizer {options.regularizer} cannot be combined",
            code="BAD_OPTION",
            hint="train with --regularizer first, then run finetune --sparsity on the result",
        )
    if options.regularizer == "bridgeout-linear" and options.accumulate > 1:
        raise InputError(
            "--regularizer bridgeout-linear draws its noise for a whole batch at once",
            code="BAD_OPTION",
            hint="leave --accumulate out, or take a larger --batch-size",
        )
    if options.new_head and (options.sparsity is not None or options.regularizer is not None):
        other = "--sparsity" if options.sparsity is not None else "--regularizer"
        raise InputError(
            f"{other} and --new-head cannot be combined",
            code="BAD_OPTION",
            hint=f"train with --new-head first, then run finetune {other} on the result",
        )
    if options.head_epochs is not None and options.head_epochs >= options.epochs:
        raise InputError(
            f"--head-epochs {options.head_epochs} leaves no epoch of {options.epochs} to train all "
            "layers",
            code="BAD_OPTION",
            hint="give fewer, or more --epochs",
        )
    for name, (fine, wanted) in RANGES.items():
        value = getattr(options, name)
        if value is not None and not fine(value):
            raise InputError(
                f"{name.replace('_', '-')} {value} is out of range",
                code="BAD_OPTION",
                hint=f"give {wanted}",
            )


def _check_place(options: FinetuneOptions) -> None:
    """Look at where training runs, how it is compiled, and what it is logged to."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", options.device):
        raise InputError(
            f"--device {options.device} is no device",
            code="BAD_OPTION",
            hint="give auto, cpu, cuda, cuda:1 (a GPU by its number) or mps",
        )
    if options.compile and not any(map(shutil.which, COMPILERS)):
        raise InputError(
            "--compile needs a C++ compiler, and there is none",
            code="NO_COMPILER",
            hint="install g++ or clang, or leave --compile out",
        )
    for name in options.log:
        packages = TRACKERS.get(name, ())
        if packages and not any(map(find_spec, packages)):
            raise InputError(
                f"--log {name} needs the package {packages[0]}, which is not installed",
                code="TRACKER_MISSING",
                hint=f"pip install {packages[0]}, or leave it out: log.csv is written anyway",
            )


COMPILERS = ("g++", "c++", "clang++", "clang", "gcc")
"""Programs that torch.compile may call."""

TRACKERS: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
}
"""Packages of the trackers that runs are logged to, each of which will do."""


def check_teaching(options: FinetuneOptions, teacher: Path | None) -> None:
    """Raise `InputError` (`NO_TEACHER`) where nobody is to teach and somebody is to be followed."""
    if options.loss == OUTPUTS and str(teacher) == NO_TEACHER:
        raise nobody_to_follow()


def nobody_to_follow() -> InputError:
    """Return the error of a model that is to follow a teacher, and has none."""
    return InputError(
        "--loss outputs follows a teacher, and there is none",
        code="NO_TEACHER",
        hint="add --teacher MODEL: the model that this one was pruned from",
    )


def check_sampling(options: FinetuneOptions) -> None:
    """Raise `InputError` (`BAD_OPTION`) for choices that exclude each other."""
    if options.curriculum and options.importance_sampling:
        raise InputError(
            "--curriculum and --importance-sampling both decide which images are trained on",
            code="BAD_OPTION",
            hint="give one of the two",
        )
    mixed = {"mixup", "cutmix"} & {name for _, name in plus(options.augment)}
    in_training = options.record_learnability_mode == "training"
    if mixed and options.record_learnability and in_training:
        raise InputError(
            f"hits cannot be taken from training on mixed images (--augment {options.augment})",
            code="BAD_OPTION",
            hint="record them in a pass of their own: --record-learnability-mode evaluation",
        )
    asked = options.curriculum or options.importance_sampling
    if asked and options.record_learnability and options.record_learnability_mode == "training":
        raise InputError(
            "hits cannot be taken from training where images are not drawn once per epoch each",
            code="BAD_OPTION",
            hint="record them in a pass of their own: --record-learnability-mode evaluation",
        )


RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "epochs": (lambda value: value >= 1, "1 or more"),
    "batch_size": (lambda value: value >= 1, "1 or more"),
    "lr": (lambda value: 0 < value < float("inf"), "a number above 0"),
    "momentum": (lambda value: 0 <= value < 1, "0 to below 1"),
    "weight_decay": (lambda value: 0 <= value < float("inf"), "0 or more"),
    "temperature": (lambda value: 0 < value < float("inf"), "a number above 0"),
    "alpha": (lambda value: 0 <= value <= 1, "0 to 1"),
    "ema": (lambda value: 0 <= value < 1, "0 (off) to below 1, such as 0.999"),
    "label_smoothing": (lambda value: 0 <= value < 1, "0 to below 1"),
    "clip": (lambda value: 0 <= value < float("inf"), "0 (off) or the largest norm"),
    "held_out": (lambda value: 0 <= value < 1, "0 to below 1"),
    "warmup": (lambda value: 0 <= value < float("inf"), "0 (none) or a number of epochs"),
    "patience": (lambda value: value >= 1, "1 or more"),
    "accumulate": (lambda value: value >= 1, "1 or more"),
    "head_epochs": (lambda value: value >= 0, "0 or more"),
    "first_rate": (lambda value: 0 < value <= 1, "a fraction above 0, up to 1"),
    "workers": (lambda value: value >= 0, "0 or more"),
    "limit": (lambda value: value >= 2, "2 or more"),
    "p": (lambda value: 0 < value < 1, "a rate between 0 and 1, such as 0.3"),
    "q": (lambda value: 0 < value < float("inf"), "a number above 0, such as 1.5"),
    "target_fraction": (lambda value: 0 < value <= 1, "a fraction above 0, up to 1"),
    "sparsity": (lambda value: 0 < value < 1, "a share between 0 and 1, such as 0.9"),
    "sparsity_every": (lambda value: value >= 1, "1 or more"),
    "sparsity_until": (lambda value: 0 <= value <= 1, "0 to 1"),
}
"""What each number may be, and how that is said."""
