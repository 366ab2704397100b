"""What `prune` can be asked for: budgets, and how channels or weights are chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prunecli.options import shared
from prunecli.options.declare import FOLLOWS, Needs, excluded_by, group, needs, option

CHANNEL = "channel"
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

On ResNet-20 and CIFAR-10 at half of the FLOPs this is 83.8 % after two short epochs of training,
and 80.7 % with the plain defaults (`prunecli.methods.chosen` says when it applies).
"""

_USUAL, _OTHERS = {**PLAIN, **METHOD_DEFAULTS[ONE_SHOT]}, METHOD_DEFAULTS[ITERATIVE]
_WHERE = f"where --signal becomes {RECIPE['signal']}"


def _is_at_once(method: str | None) -> bool:
    """Tell whether a method, as it was typed, cuts at once; what nobody names may still do so."""
    return method in (None, AUTO_METHOD, ONE_SHOT)


ONE_CUT = excluded_by("sweep")
BY_ITERATIVE, BY_BAR = needs("method", ITERATIVE), needs("method", BAR)
LEARNS = needs(
    "method",
    test=lambda method: method != ITERATIVE and not _is_at_once(method),
    hint="add --method exact-gates",
)
TRAINS = Needs(
    {"method": lambda method: not _is_at_once(method), "epochs": bool},
    hint="add --epochs 10, or --method iterative",
)
"""Options of training: a one-shot cut is trained for `epochs` alone."""
TAUGHT_HERE = (
    TRAINS,
    shared.TAUGHT,
    Needs({"teacher": bool, "method": lambda name: name != ITERATIVE}, hint="add --teacher MODEL"),
)
"""Options of distillation: unless one is named, the model itself teaches all but `iterative`."""
CHANNELS = needs("granularity", CHANNEL, hint="leave {flag} out")
LATENCY_ASKED = Needs(
    {
        "latency": bool,
        "latency_table": bool,
        "signal": lambda signal: "/latency-removed" in (signal or ""),
    },
    hint="add --latency 0.7",
)
AUTO_SIGNAL = needs(
    "signal",
    test=lambda names: "auto" in (names or "").split(","),
    hint="add --signal auto",
)


@dataclass(frozen=True)
class BudgetOptions:
    """What is to be kept, as people write it (`prunecli.budget.make_budget`)."""

    flops: str | None = option(
        None,
        "Target FLOPs: fraction to keep (0.5, 50%) or absolute (150M).",
        metavar="KEEP",
        panel=shared.BUDGET,
        basic=True,
        needs=(ONE_CUT,),
    )
    params: str | None = option(
        None,
        "Target parameters: fraction to keep or absolute (1.5M).",
        metavar="KEEP",
        panel=shared.BUDGET,
        basic=True,
        needs=(ONE_CUT,),
    )
    activations: str | None = option(
        None,
        "Target activations: fraction to keep or absolute.",
        metavar="KEEP",
        panel=shared.BUDGET,
        needs=(ONE_CUT,),
    )
    bytes: str | None = option(
        None,
        "Target size: fraction to keep or absolute (4MB).",
        metavar="KEEP",
        panel=shared.BUDGET,
        needs=(ONE_CUT,),
    )
    sparsity: str | None = option(
        None,
        "Fraction of channels to remove, or of weights to zero with --granularity weight.",
        metavar="REMOVE",
        panel=shared.BUDGET,
        basic=True,
        needs=(ONE_CUT,),
    )
    latency: str | None = option(
        None,
        "Target latency in ONNX Runtime on this CPU: fraction to keep (0.7) or absolute (5ms). "
        "Takes about a minute of measuring.",
        metavar="KEEP",
        panel=shared.BUDGET,
        basic=True,
        needs=(ONE_CUT,),
    )


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
    `amp`, `ema` and `clip` are as in `FinetuneOptions`. `resume` continues an interrupted run.
    """

    epochs: int | None = _training(
        None,
        "Training epochs, pruning included (default: 10 with a method that learns what to prune).",
        metavar="N",
        minimum=1,
        basic=True,
        needs=(needs("method", test=lambda method: method != ITERATIVE, hint="leave {flag} out"),),
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
    gate_lr: float | None = _learning(
        None,
        "Learning rate of gates, as published (default: steps of one length, whatever the "
        "gradient; ours).",
        metavar="X",
        minimum=0,
        needs=(needs("method", BAR, GATES, EXACT_GATES, hint="add --method exact-gates"),),
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


_latency = partial(option, panel=shared.LATENCY)


@dataclass(frozen=True)
class LatencyOptions:
    """What a latency is measured of: ONNX Runtime on the CPU at batch size `batch`.

    `table` is read if it exists, else measured and written there; `threads=None` takes one per
    physical core.
    """

    table: Path | None = _latency(
        None,
        "Measured latencies of operators (JSON). Read if the file exists, else measured and "
        "written.",
        metavar="FILE",
        flags="--latency-table",
    )
    batch: int = _latency(
        1,
        "Batch size.",
        metavar="N",
        minimum=1,
        flags="--latency-batch",
        needs=(LATENCY_ASKED,),
    )
    threads: int | None = shared.threads(panel=shared.LATENCY, needs=(LATENCY_ASKED,))


_criterion = partial(option, panel=shared.CRITERION)


@dataclass(frozen=True)
class PruneOptions:
    """How channels are chosen.

    `align` is the number that kept widths are a multiple of (None: chosen per group, see
    `cost.alignment`); `exclude` and `only` are layer patterns (`layer3.*`); `limit` is the number
    of images that a signal which needs data, a repair, or the training of a method may look at.
    `repair` names what is done after the cut, in order (`prunecli.repair`). `importance` names what
    allocations by importance look at (None: `probe` with images, `energy` without;
    `prunecli.importance`). `granularity` is `channel`, `weight`, or a pattern of weights such as
    `2:4`. `method` says how the cut comes about (`prunecli.verbs.prune`), `training` how that
    method alternates, `latency` what a budget of milliseconds means. `signal` and `limit` are by
    default those of the method (`METHOD_DEFAULTS`); `limit=None` is every image. The signal `auto`
    takes the best of `candidates` (some well-known ones, if there are none) on held-out images
    (`prunecli.pruning.search`). `dead` removes dead channels first: those that are constant, and
    with `dead_threshold` those whose replacement by their mean changes the loss by no more
    (`prunecli.dead`). `delete_blocks` lets whole residual blocks go beside channels
    (`prunecli.pruning.deletion`).
    """

    signal: str = _criterion(
        FOLLOWS,
        f"Importance criterion (default: {_USUAL['signal']}; {RECIPE['signal']} with --data, if "
        f"none of --signal, --allocation and --repair is given; {_OTHERS['signal']} with --method "
        f"{ITERATIVE}). See 'prunecli methods signal'. 'auto' tries several and keeps the one with "
        "the lowest loss on held-out images.",
        metavar="NAME",
        basic=True,
        choices=(*shared.SIGNALS, "auto"),
    )
    allocation: str = _criterion(
        FOLLOWS,
        f"How the budget is distributed over layers (default: {_USUAL['allocation']}, or "
        f"{RECIPE['allocation']} {_WHERE}). See 'prunecli methods allocation'.",
        metavar="NAME",
        basic=True,
        choices=shared.ALLOCATIONS,
        needs=(
            needs(
                "granularity", test=lambda kind: ":" not in (kind or ""), hint="leave {flag} out"
            ),
        ),
    )
    aggregate: str = shared.aggregate(needs=(CHANNELS,))
    align: int | None = _criterion(
        None,
        "Round kept widths to multiples of N (default: chosen so that the result is fast).",
        metavar="N",
        minimum=1,
        needs=(CHANNELS,),
    )
    min_width: int = _criterion(
        1, "Minimum channels to keep per group.", metavar="N", minimum=1, needs=(CHANNELS,)
    )
    exclude: tuple[str, ...] = _criterion(
        (), "Layers to leave unpruned ('layer3.*'). Repeatable.", metavar="PATTERN"
    )
    only: tuple[str, ...] = _criterion(
        (), "Prune only these layers. Repeatable.", metavar="PATTERN"
    )
    seed: int = shared.seed()
    limit: int | None = option(
        FOLLOWS,
        f"Maximum number of images to use (default: {_USUAL['limit']} to choose by, all to train).",
        metavar="N",
        minimum=1,
        panel=shared.DATA,
    )
    repair: tuple[str, ...] = option(
        FOLLOWS,
        "Repair the pruned model without training, in this order: bn,bias,lstsq. Needs --data "
        f"(default: {NO_REPAIR}, or {','.join(RECIPE['repair'])} {_WHERE}).",
        metavar="NAMES",
        panel=shared.CRITERION,
        basic=True,
        form="names",
    )
    method: str = option(
        FOLLOWS,
        "Pruning method: auto (default: by the number of --epochs, today always one-shot), "
        "one-shot, iterative (remove a few channels at a time, train in between), or one that "
        "learns what to prune (exact-gates, bar, gates, ...). See 'prunecli methods \"pruning "
        "method\"'.",
        metavar="NAME",
        panel=shared.CRITERION,
        basic=True,
        choices=(AUTO_METHOD, *METHOD_DEFAULTS),
        needs=(ONE_CUT,),
    )
    training: TrainingOptions = group(TrainingOptions, ONE_CUT, CHANNELS)
    granularity: str = option(
        CHANNEL,
        "What to remove: channel, weight (unstructured), or 2:4 (keep 2 of every 4 weights).",
        metavar="KIND",
        panel=shared.CRITERION,
        choices=(CHANNEL, "weight", "2:4"),
        needs=(ONE_CUT,),
    )
    importance: str | None = _criterion(
        None,
        "Layer importance for allocations based on it: probe, sensitivity or energy (default: "
        "probe with --data, else energy).",
        metavar="NAME",
        choices=shared.IMPORTANCES,
        needs=(
            CHANNELS,
            needs(
                "allocation",
                test=lambda names: "-importance" in (names or ""),
                hint="add --allocation inverse-importance",
            ),
        ),
    )
    latency: LatencyOptions = group(LatencyOptions, CHANNELS, ONE_CUT)
    candidates: tuple[str, ...] = _criterion(
        (),
        "Signals to try (default: some well-known ones). 'random' is always tried as well.",
        metavar="A,B,C",
        form="names",
        needs=(CHANNELS, AUTO_SIGNAL),
    )
    dead: bool = option(
        False,
        "Remove dead channels first: those that are constant on --data, or by their weights. "
        "Needs no budget.",
        panel=shared.BUDGET,
        needs=(ONE_CUT, CHANNELS),
    )
    dead_threshold: float | None = shared.dead_threshold(needs=(ONE_CUT, CHANNELS, needs("dead")))
    delete_blocks: bool = option(
        False,
        "Also delete whole residual blocks where that is worth more than thin ones: judged on "
        "--data, or by the channels that the budget leaves of them.",
        panel=shared.CRITERION,
        needs=(ONE_CUT, CHANNELS, needs("method", test=_is_at_once, hint="leave {flag} out")),
    )

    def __post_init__(self) -> None:
        followed = []
        if self.method in (FOLLOWS, AUTO_METHOD):
            followed.append("method")
            object.__setattr__(self, "method", ONE_SHOT)
        if self.repair == (NO_REPAIR,):
            object.__setattr__(self, "repair", ())
        own = {**PLAIN, **METHOD_DEFAULTS.get(self.method, METHOD_DEFAULTS[ONE_SHOT])}
        for name, usual in own.items():
            if getattr(self, name) is FOLLOWS:
                followed.append(name)
                object.__setattr__(self, name, usual)
        object.__setattr__(self, "followed", tuple(followed))
