"""How `prune` comes to a cut: the names of its methods, their defaults, and how they train."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prunecli.options import shared
from prunecli.options.declare import Needs, needs, option

ONE_SHOT, ITERATIVE = "one-shot", "iterative"
BAR, GATES, EXACT_GATES = "bar", "gates", "exact-gates"
SLIMMING, GROUP_LASSO, GRADUAL = "slimming", "group-lasso", "gradual"
DYNAMIC = "dynamic"
LEARNED = (EXACT_GATES, BAR, GATES, GRADUAL, SLIMMING, GROUP_LASSO, DYNAMIC)
"""The methods that learn what to prune while they train."""

AUTO_METHOD = "auto"
"""What stands for a method where prunecli chooses one (`prunecli.methods.auto`)."""

NO_REPAIR = "none"
"""What people write for a model that is to be left as it was cut."""

METHOD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    ONE_SHOT: {"signal": "l1", "limit": 1024},
    # Loss per cost as Theis et al. remove; every image is trained on.
    ITERATIVE: {"signal": "fisher", "limit": None},
    # The saliency that gates begin with; the other methods have a criterion of their own.
    EXACT_GATES: {"signal": "taylor", "limit": None},
    BAR: {"signal": "taylor", "limit": None},
    GATES: {"signal": "taylor", "limit": None},
    SLIMMING: {"signal": "bn-gamma", "limit": None},
    GRADUAL: {"signal": "l2", "limit": None},
    GROUP_LASSO: {"signal": "l2", "limit": None},
    # Its rewards: what a channel that ran would change in the loss.
    DYNAMIC: {"signal": "taylor", "limit": None},
}
"""What a method takes for options that nobody gives."""

PLAIN: Mapping[str, Any] = {"allocation": "uniform", "repair": ()}
"""What every method takes for these."""

RECIPE: Mapping[str, Any] = {
    "signal": "reconstruction",
    "allocation": "greedy",
    "repair": ("lstsq",),
}
"""What a one-shot cut of channels takes with images, where none of the three is named.

On ResNet-20 and CIFAR-10 at half of the FLOPs this is 82.3 % after two epochs on 6,000 images,
and 80.2 % with the plain defaults (`prunecli.methods.default_recipe` says when it applies).
"""


def is_at_once(method: str | None) -> bool:
    """Tell whether a method, as it was typed, cuts at once; what nobody names may still do so."""
    return method in (None, AUTO_METHOD, ONE_SHOT)


BY_ITERATIVE, BY_BAR = needs("method", ITERATIVE), needs("method", BAR)
GATED = needs("method", BAR, GATES, EXACT_GATES, hint="add --method exact-gates")
LEARNS = needs(
    "method",
    test=lambda method: method != ITERATIVE and not is_at_once(method),
    hint="add --method exact-gates",
)
TRAINS = Needs(
    {"method": lambda method: not is_at_once(method), "epochs": bool},
    hint="add --epochs 10, or --method iterative",
)
"""Options of training: a one-shot cut is trained for `epochs` alone."""
TAUGHT_HERE = (
    TRAINS,
    shared.TAUGHT,
    Needs({"teacher": bool, "method": lambda name: name != ITERATIVE}, hint="add --teacher MODEL"),
)
"""Options of distillation: unless one is named, the model itself teaches all but `iterative`."""

_BY_EPOCHS = needs("method", test=lambda method: method != ITERATIVE, hint="leave {flag} out")
_ADDS_UP = needs(
    "method", test=lambda method: method not in (ITERATIVE, DYNAMIC), hint="leave {flag} out"
)
_CUT_AT_ONCE = needs("method", test=is_at_once, hint="leave {flag} out, or use --method one-shot")
_training = partial(option, panel=shared.METHOD)
_learning = partial(option, panel=shared.LEARNING)


@dataclass(frozen=True)
class TrainingOptions:
    """How a method trains while it prunes, and how a one-shot cut is trained after it.

    With `epochs`, a one-shot cut is fine-tuned for so many; the methods that learn what to prune do
    both within them: channels are chosen in the first part, `search`, then removed, and what is
    left is trained for the rest. In the method `iterative`, `remove_per_step` channels are removed
    after every `updates` mini-batches; None: as many as make about 30 removals, each of the same
    fraction of the cost. None for `lr` and `schedule` takes the method's own; for `teacher` it is
    the model itself before it is pruned (nobody in `iterative`), and the path `none` is nobody.
    `amp`, `ema`, `clip`, `warmup`, `patience`, `accumulate`, `freeze`, `augment`, `workers`,
    `device`, `compile` and `log` are as in `FinetuneOptions`. `resume` continues an interrupted
    run.
    """

    epochs: int | None = _training(
        None,
        "Training epochs, pruning included (default: 10 with a method that learns what to prune).",
        metavar="N",
        minimum=1,
        basic=True,
        needs=(_BY_EPOCHS,),
    )
    remove_per_step: int | None = _training(
        None,
        "Channels per removal (default: about 30 removals in total).",
        metavar="N",
        minimum=1,
        needs=(BY_ITERATIVE,),
    )
    updates: int = _training(
        20, "Training updates between removals.", metavar="N", minimum=1, needs=(BY_ITERATIVE,)
    )
    lr: float | None = _training(
        None,
        "Learning rate (default: the optimizer's own; half of it with --method iterative).",
        metavar="X",
        needs=(TRAINS,),
    )
    optimizer: str = shared.optimizer(panel=shared.METHOD, needs=(TRAINS,))
    batch_size: int = shared.batch_size(panel=shared.METHOD, minimum=2, needs=(TRAINS,))
    weight_decay: float = _training(5e-4, "Weight decay.", metavar="X", minimum=0, needs=(TRAINS,))
    amp: str = shared.amp(panel=shared.METHOD, needs=(TRAINS,))
    schedule: str | None = shared.schedule(
        None,
        help="Learning-rate schedule (default: one-cycle; constant with --method iterative). See "
        "'prunecli methods schedule'.",
        panel=shared.METHOD,
        needs=(TRAINS,),
    )
    warmup: float = shared.warmup(panel=shared.METHOD, needs=(TRAINS, *shared.RISES))
    patience: int | None = shared.patience(panel=shared.METHOD, needs=(TRAINS, _BY_EPOCHS))
    accumulate: int = shared.accumulate(panel=shared.METHOD, needs=(TRAINS, _ADDS_UP))
    freeze: tuple[str, ...] = shared.freeze(panel=shared.METHOD, needs=(TRAINS, _CUT_AT_ONCE))
    augment: str = shared.augment(panel=shared.METHOD, needs=(TRAINS,))
    workers: int | None = shared.workers(panel=shared.METHOD, needs=(TRAINS,))
    device: str = shared.train_device(panel=shared.METHOD, needs=(TRAINS,))
    compile: bool = shared.compiled(panel=shared.METHOD, needs=(TRAINS, _CUT_AT_ONCE))
    log: tuple[str, ...] = shared.log(panel=shared.METHOD, needs=(TRAINS,))
    ema: float = shared.ema(panel=shared.METHOD, needs=(TRAINS,))
    clip: float = shared.clip(panel=shared.METHOD, needs=(TRAINS,))
    teacher: Path | None = _training(
        None,
        "Checkpoint to distil from while training (default: the model itself, before it is "
        "pruned; no teacher with --method iterative), or none.",
        metavar="MODEL",
        needs=(TRAINS,),
    )
    temperature: float = shared.temperature(panel=shared.METHOD, needs=TAUGHT_HERE)
    alpha: float = shared.alpha(panel=shared.METHOD, needs=TAUGHT_HERE)
    resume: bool = _training(False, "Resume an interrupted run.", needs=(TRAINS,))
    search: float | None = _learning(
        None,
        "Fraction of the epochs during which channels are chosen (default: the method's own).",
        metavar="FRACTION",
        minimum=0.01,
        maximum=0.99,
        needs=(LEARNS,),
    )
    start: str = _learning(
        "spread",
        "Gates at the start: spread (by the saliency of the channels, ours) or equal (as "
        "published: many then close in the same steps).",
        metavar="KIND",
        choices=("spread", "equal"),
        needs=(needs("method", BAR, GATES, hint="add --method bar"),),
    )
    threshold: str = _learning(
        "exact",
        "Which gates are closed: exact (as many as the budget of the moment asks for, ours) or "
        "fixed (those below the published threshold).",
        metavar="KIND",
        choices=("exact", "fixed"),
        needs=(needs("method", BAR, GATES, hint="add --method bar"),),
    )
    volume: str = _learning(
        "expected",
        "What the barrier sees: the expected cost (ours) or the cost of the open gates (hard, as "
        "published).",
        metavar="KIND",
        choices=("expected", "hard"),
        needs=(BY_BAR,),
    )
    budget_schedule: str = _learning(
        "sigmoid",
        "How the budget of bar falls: sigmoid, exponential or linear.",
        metavar="NAME",
        choices=("sigmoid", "exponential", "linear"),
        needs=(BY_BAR,),
    )
    gate_shape: str = _learning(
        "one",
        "Gradient shaping of trainable gates: one, logistic or tanh.",
        metavar="NAME",
        choices=("one", "logistic", "tanh"),
        needs=(needs("method", GATES),),
    )
    gates_at: str = _learning(
        "readers",
        "Where gates are: on the weights that read a channel (readers, ours: what is masked is "
        "what is cut), behind the batch norm of its layer (norms, as published for bar), or on its "
        "filter (filters, as published for gates).",
        metavar="PLACE",
        choices=("readers", "norms", "filters"),
        needs=(GATED,),
    )
    mixed_connectivity: bool = _learning(
        False,
        "Let every residual block write a part of its stream's channels and read what is left of "
        "them, as published for bar; a block that writes nothing is deleted.",
        needs=(needs("method", BAR, GATES, EXACT_GATES, hint="add --method bar"),),
    )
    gate_lr: float | None = _learning(
        None,
        "Learning rate of gates, as published (default: steps of one length, whatever the "
        "gradient; ours).",
        metavar="X",
        minimum=0,
        needs=(GATED,),
    )
    explore: float = _learning(
        1.5,
        "How much dynamic execution tries channels that ran rarely (the constant of CUCB).",
        metavar="X",
        minimum=0,
        needs=(needs("method", DYNAMIC),),
    )
    strength: float | None = _learning(
        None,
        "Weight of what a method adds to the loss (default: the method's own).",
        metavar="X",
        minimum=0,
        needs=(needs("method", BAR, GATES, SLIMMING, GROUP_LASSO, hint="add --method bar"),),
    )
