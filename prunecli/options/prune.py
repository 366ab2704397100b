"""What `prune` can be asked for: budgets, and how channels or weights are chosen."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prunecli.options import shared
from prunecli.options.declare import FOLLOWS, Needs, excluded_by, group, needs, option
from prunecli.options.methods import (
    AUTO_METHOD,
    ITERATIVE,
    METHOD_DEFAULTS,
    NO_REPAIR,
    ONE_SHOT,
    PLAIN,
    RECIPE,
    TrainingOptions,
    is_at_once,
)
from prunecli.options.names import Names, several, signals

CHANNEL = "channel"
ONE_CUT = excluded_by("sweep")
CHANNELS = needs("granularity", CHANNEL, hint="leave {flag} out")
LATENCY_ASKED = Needs(
    {
        "latency": bool,
        "speedup": bool,
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


def _kind_of_allocation(given: Mapping[str, Any]) -> str:
    channels = given.get("granularity", CHANNEL) == CHANNEL
    return "allocation" if channels else "weight allocation"


_USUAL, _OTHERS = {**PLAIN, **METHOD_DEFAULTS[ONE_SHOT]}, METHOD_DEFAULTS[ITERATIVE]
_WHERE = f"where --signal becomes {RECIPE['signal']}"


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
    speedup: str | None = option(
        None,
        "Target speed: how many times as fast as the original (2 is --latency 0.5).",
        metavar="FACTOR",
        panel=shared.BUDGET,
        needs=(ONE_CUT,),
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
    (`prunecli.pruning.deletion`). `strict` refuses a cut whose proof has limits.
    """

    signal: str = _criterion(
        FOLLOWS,
        f"Importance criterion (default: {_USUAL['signal']}; {RECIPE['signal']} with --data, if "
        f"none of --signal, --allocation and --repair is given; {_OTHERS['signal']} with --method "
        f"{ITERATIVE}). See 'prunecli methods signal'. 'auto' tries several and keeps the one with "
        "the lowest loss on held-out images.",
        metavar="NAME",
        basic=True,
        names=Names("signal", words=("auto",), read=signals),
    )
    allocation: str = _criterion(
        FOLLOWS,
        f"How the budget is distributed over layers (default: {_USUAL['allocation']}, or "
        f"{RECIPE['allocation']} {_WHERE}). See 'prunecli methods allocation'.",
        metavar="NAME",
        basic=True,
        names=Names(_kind_of_allocation, read=several),
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
        names=Names("repair", words=(NO_REPAIR,)),
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
        names=Names("pruning method", words=(AUTO_METHOD,)),
        needs=(ONE_CUT,),
    )
    training: TrainingOptions = group(TrainingOptions, ONE_CUT, CHANNELS)
    granularity: str = option(
        CHANNEL,
        "What to remove: channel, weight (unstructured), or 2:4 (keep 2 of every 4 weights).",
        metavar="KIND",
        panel=shared.CRITERION,
        suggested=(CHANNEL, "weight", "2:4"),
        needs=(ONE_CUT,),
    )
    importance: str | None = _criterion(
        None,
        "Layer importance for allocations based on it: probe, sensitivity or energy (default: "
        "probe with --data, else energy).",
        metavar="NAME",
        names=Names("importance"),
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
        names=Names("signal", read=signals),
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
        needs=(ONE_CUT, CHANNELS, needs("method", test=is_at_once, hint="leave {flag} out")),
    )
    strict: bool = option(
        False,
        "Refuse a result whose proof has limits (exit code 5), such as a batch of one that the "
        "model treats differently.",
        panel=shared.GATES,
        needs=(ONE_CUT, CHANNELS),
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
