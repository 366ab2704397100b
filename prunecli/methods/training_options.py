"""How a method that prunes trains the weights meanwhile: its options as a fine-tuning."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from prunecli.errors import InputError
from prunecli.options import FinetuneOptions, TrainingOptions
from prunecli.options.methods import PLAIN
from prunecli.training.finetune import check_options

if TYPE_CHECKING:
    from prunecli.options import PruneOptions

_TAKEN = ("limit", "seed")


def training_of(options: PruneOptions, **changes: Any) -> FinetuneOptions:
    """Return the training that `options` ask for, with `changes`; raise `InputError` if it cannot.

    What both kinds of options name alike is taken over; None stands for the default of fine-tuning.
    """
    own = {field.name for field in dataclasses.fields(FinetuneOptions)}
    shared = {
        field.name: getattr(options.training, field.name)
        for field in dataclasses.fields(TrainingOptions)
        if field.name in own
    }
    given = {name: value for name, value in shared.items() if value is not None}
    taken = {name: getattr(options, name) for name in _TAKEN}
    training = FinetuneOptions(**{**given, **taken, **changes})
    check_options(training)
    return training


def check_learns(options: PruneOptions) -> None:
    """Raise `InputError` for what a method that learns what to prune decides by itself, or cannot.

    An allocation would have no effect: the widths come of the training.
    """
    if options.repair:
        raise InputError(
            "a repair refits a model to its dense outputs, and this one has been trained since",
            code="BAD_OPTION",
            where="--repair",
            hint="leave --repair out, or use --method one-shot",
        )
    if options.allocation != PLAIN["allocation"]:
        raise InputError(
            f"--allocation {options.allocation} has no effect with --method {options.method}, "
            "which distributes the budget by itself",
            code="OPTION_WITHOUT_EFFECT",
            where="--allocation",
            hint="leave --allocation out, or use --method one-shot",
        )
