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

METHOD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    ONE_SHOT: {"signal": "l1", "limit": 1024},
    # Loss per cost as Theis et al. remove; every image is trained on.
    ITERATIVE: {"signal": "fisher", "limit": None},
}
"""What a method takes for options that nobody gives."""

_BY_METHOD = {
    name: f"{usual}; {METHOD_DEFAULTS[ITERATIVE][name] or 'all'} with --method {ITERATIVE}"
    for name, usual in METHOD_DEFAULTS[ONE_SHOT].items()
}
"""Those defaults as the help says them."""

ONE_CUT = excluded_by("sweep")
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


_iterative = partial(option, panel=shared.METHOD)


@dataclass(frozen=True)
class IterativeOptions:
    """How removals and training updates alternate in the method `iterative`.

    `remove_per_step` channels are removed after every `updates` mini-batches; None: as many as make
    about 30 removals, each of the same fraction of the cost. `lr=None` takes half of the
    optimizer's own rate, which is a peak. `amp`, `schedule`, `ema` and `clip` are as
    in `FinetuneOptions`, the schedule over all updates that are planned. `resume` continues an
    interrupted run.
    """

    remove_per_step: int | None = _iterative(
        None, "Channels per removal (default: about 30 removals in total).", metavar="N", minimum=1
    )
    updates: int = _iterative(20, "Training updates between removals.", metavar="N", minimum=1)
    lr: float | None = _iterative(
        None, "Learning rate (default: half of the optimizer's own).", metavar="X"
    )
    optimizer: str = shared.optimizer(panel=shared.METHOD)
    batch_size: int = shared.batch_size(panel=shared.METHOD, minimum=2)
    amp: str = shared.amp(panel=shared.METHOD)
    schedule: str = shared.schedule("constant", panel=shared.METHOD)
    ema: float = shared.ema(panel=shared.METHOD)
    clip: float = shared.clip(panel=shared.METHOD)
    teacher: Path | None = _iterative(
        None,
        "Checkpoint to distil from while training, usually the unpruned model.",
        metavar="MODEL",
    )
    resume: bool = _iterative(False, "Resume an interrupted run.")


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
    `2:4`. `method` says how the cut comes about (`prunecli.verbs.prune`), `iterative` how that
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
        f"Importance criterion (default: {_BY_METHOD['signal']}). See 'prunecli methods signal'. "
        "'auto' tries several and keeps the one with the lowest loss on held-out images.",
        metavar="NAME",
        basic=True,
        choices=(*shared.SIGNALS, "auto"),
    )
    allocation: str = _criterion(
        "uniform",
        "How the budget is distributed over layers. See 'prunecli methods allocation'.",
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
        f"Maximum number of images to use (default: {_BY_METHOD['limit']}).",
        metavar="N",
        minimum=1,
        panel=shared.DATA,
    )
    repair: tuple[str, ...] = option(
        (),
        "Repair the pruned model without training, in this order: bn,bias,lstsq. Needs --data.",
        metavar="NAMES",
        panel=shared.CRITERION,
        basic=True,
        form="names",
    )
    method: str = option(
        ONE_SHOT,
        "Pruning method: one-shot, or iterative (remove a few channels at a time, train in "
        "between).",
        metavar="NAME",
        panel=shared.CRITERION,
        basic=True,
        choices=tuple(METHOD_DEFAULTS),
        needs=(ONE_CUT,),
    )
    iterative: IterativeOptions = group(IterativeOptions, needs("method", ITERATIVE))
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
        needs=(ONE_CUT, CHANNELS, needs("method", ONE_SHOT, hint="leave {flag} out")),
    )

    def __post_init__(self) -> None:
        own = METHOD_DEFAULTS.get(self.method, METHOD_DEFAULTS[ONE_SHOT])
        followed = tuple(name for name in own if getattr(self, name) is FOLLOWS)
        object.__setattr__(self, "followed", followed)
        for name in followed:
            object.__setattr__(self, name, own[name])
