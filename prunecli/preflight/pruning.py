"""What no model can be pruned by: choices that contradict each other, and images that are missing.

Every function is pure, and raises `InputError` before any work. `images` tells whether there are
any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.atomic import check_place
from prunecli.errors import InputError
from prunecli.options.granularity import CHANNEL, parse_pattern
from prunecli.options.methods import ONE_SHOT, is_at_once
from prunecli.options.names import LOOKING_AT_IMAGES, looks_at_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prunecli.budget import Budget
    from prunecli.options import LatencyOptions, PruneOptions

AUTO = "auto"
"""What stands for a signal where the best of several is wanted."""

CONTROL = "random"
"""The signal that every other one has to beat."""

BY_IMPORTANCE = ("inverse-importance", "proportional-importance")
"""The allocations that look at one importance per group."""

LATENCY_REMOVED = "latency-removed"
"""The scaling of a signal that needs a latency table."""


def check_prune(options: PruneOptions, budget: Budget | None, *, images: bool) -> None:
    """Raise `InputError` for options by which nothing can be pruned, whatever the model."""
    check_road(options, budget)
    if options.granularity != CHANNEL:
        check_share_of_weights(options, weight_sparsity(budget))
        return
    assert budget is not None
    check_latency(options.latency)
    if not is_at_once(options.method):
        check_training_images(options, images=images)
        return
    check_search(options, images or None)
    if not images:
        _check_signal(options.signal)
        check_repair_images(options.repair)
        _check_importance(options)
    check_dead(budget, options)
    check_deletion(budget, options)
    if options.training.epochs is not None and not images:
        raise no_training_images(options.training.epochs)


def check_mixed(options: PruneOptions, budget: Budget) -> None:
    """Raise `InputError` for what cannot go with mixed connectivity, before any work."""
    if not options.training.mixed_connectivity:
        return
    for asked, problem, hint in (
        (
            needs_table(budget, options),
            "a latency table says nothing of blocks that write a part of their stream",
            "limit --flops, --params or --activations instead of the latency",
        ),
        (
            any(limit.kind == "channels" for limit in budget.limits),
            "channels of a stream have a gate for each of their writers: no share of them is meant",
            "limit --flops, --params or --activations instead of --sparsity",
        ),
        (
            options.align is not None or options.min_width > 1,
            "widths are those of the gates that are open: --align and --min-width have no effect",
            "leave them out",
        ),
    ):
        if asked:
            raise InputError(problem, code="BAD_OPTION", where="--mixed-connectivity", hint=hint)


def check_road(options: PruneOptions, budget: Budget | None) -> None:
    """Raise `InputError` for what the way to a cut cannot do, before any work."""
    single_weights, trains = options.granularity != CHANNEL, not is_at_once(options.method)
    if single_weights:
        check_weights_at_once(options)
    elif budget is None:
        raise InputError("no budget was given", code="NO_BUDGET", hint="give --flops 0.5")
    else:
        check_mixed(options, budget)
    if not (single_weights or trains):
        return
    for asked, problem, hint in (
        (
            options.dead,
            "dead channels are removed by one-shot cuts",
            "remove them first with prunecli prune --dead, then go on with the result",
        ),
        (
            trains and options.allocation in BY_IMPORTANCE,
            f"the allocation {options.allocation} measures layers once, before a one-shot cut",
            "use --allocation greedy, or leave --method out",
        ),
        (
            options.signal == AUTO,
            "the signal auto compares one-shot cuts of channels",
            "name a signal, or leave --method and --granularity out",
        ),
        (
            trains and options.signal.endswith(f"/{LATENCY_REMOVED}"),
            f"the signal {options.signal} counts milliseconds, which is done once, before a cut",
            "name another signal; --latency itself is a budget of every method",
        ),
        (
            single_weights and needs_latencies(budget, options),
            "milliseconds are counted by cuts of channels alone",
            "leave --granularity out",
        ),
    ):
        if asked:
            raise InputError(problem, code="BAD_OPTION", hint=hint)


def needs_table(budget: Budget, options: PruneOptions) -> bool:
    """Tell whether milliseconds matter: for the budget, or because the user names a table."""
    limited = any(limit.kind == "latency" for limit in budget.limits)
    return limited or options.latency.table is not None


def needs_latencies(budget: Budget | None, options: PruneOptions) -> bool:
    """Tell whether a budget, a table or a signal asks for milliseconds."""
    limited = budget is not None and needs_table(budget, options)
    return limited or options.signal.endswith(f"/{LATENCY_REMOVED}")


def check_share_of_weights(options: PruneOptions, sparsity: float | None) -> None:
    """Raise `InputError` (`BAD_BUDGET`) unless a share of weights or a pattern is given."""
    pattern = parse_pattern(options.granularity)
    if options.granularity == CHANNEL or (pattern is None) != (sparsity is not None):
        raise InputError(
            f"--granularity {options.granularity} "
            + ("zeroes a share of its own" if pattern else "needs the share of weights to zero"),
            code="BAD_BUDGET",
            hint="leave --sparsity out" if pattern else "say it: --sparsity 0.9",
        )
    if sparsity is not None and not 0 < sparsity < 1:
        raise InputError(
            f"--sparsity {sparsity:g} is no share between 0 and 1",
            code="BAD_BUDGET",
            hint="give the share of weights to zero, such as 0.9",
        )


def check_weights_at_once(options: PruneOptions) -> None:
    """Raise `InputError` for a method that trains: such a method removes channels."""
    if options.method != ONE_SHOT:
        raise InputError(
            f"the method {options.method} removes channels, no single weights",
            code="BAD_OPTION",
            hint="zero weights along the way with prunecli finetune --sparsity 0.9",
        )


def weight_sparsity(budget: Budget | None) -> float | None:
    """Return the share of weights to zero; raise `InputError` for a budget of something else."""
    if budget is None:
        return None
    for limit in budget.limits:
        if limit.kind != "channels" or limit.fraction is None:
            raise InputError(
                f"--{limit.kind} is no budget for single weights: the model keeps its shape",
                code="BAD_BUDGET",
                hint="give the share of the weights to zero, such as --sparsity 0.9",
            )
    fraction = budget.limits[0].fraction
    assert fraction is not None
    return 1.0 - fraction


def check_latency(options: LatencyOptions) -> None:
    """Raise `InputError` for options that mean nothing, before any work."""
    for flag, value in (("--threads", options.threads), ("--latency-batch", options.batch)):
        if value is not None and value < 1:
            raise InputError(f"{flag} {value} is below 1", code="BAD_OPTION")
    if options.table is not None and not options.table.exists():
        check_place(options.table)


def check_search(options: PruneOptions, batches: object) -> None:
    """Raise `InputError` for candidates that cannot be tried, before any work."""
    if options.signal != AUTO:
        return
    if AUTO in options.candidates or set(options.candidates) == {CONTROL}:
        raise InputError(
            f"--candidates {','.join(options.candidates)} leaves nothing to choose from",
            code="BAD_OPTION",
            hint="name signals (prunecli methods lists them); random is always tried beside them",
        )
    if batches is None:
        raise InputError(
            "--signal auto measures a loss on images, and none were given",
            code="SIGNAL_NEEDS_DATA",
            hint="add --data DIR, or name a signal of the weights alone (l1, l2, bn-gamma)",
        )


def chosen_importance(options: PruneOptions, *, data: bool) -> str | None:
    """Return the name of the importance that an allocation uses; None where it uses none.

    Unless one is named it is `probe` where there are images, and `energy` otherwise.
    """
    if options.allocation not in BY_IMPORTANCE:
        return None
    return options.importance or ("probe" if data else "energy")


def no_importance_images(name: str) -> InputError:
    """Return the error of an importance that has nothing to look at."""
    return InputError(
        f"the importance {name} looks at images, and none were given",
        code="IMPORTANCE_NEEDS_DATA",
        hint="add --data DIR, or take --importance energy",
    )


def check_dead(budget: Budget, options: PruneOptions) -> None:
    """Raise `InputError` where there is neither a limit nor a search for dead channels."""
    if not budget.limits and not options.dead:
        raise InputError(
            "no budget was given",
            code="NO_BUDGET",
            hint="say how much to keep, e.g. --flops 0.5, or remove dead channels alone: --dead",
        )


def check_deletion(budget: Budget, options: PruneOptions) -> None:
    """Raise `InputError` for what cannot go with deleted blocks, before any work."""
    if not options.delete_blocks:
        return
    if not budget.limits:
        raise InputError(
            "a block goes where a budget is better spent elsewhere, and no budget was given",
            code="NO_BUDGET",
            where="--delete-blocks",
            hint="give --flops 0.5, or leave --delete-blocks out: --dead needs no budget",
        )


def check_repair_images(names: Sequence[str]) -> None:
    """Raise `InputError` for repairs, as there are no images to look at."""
    if names:
        raise InputError(
            f"the repair {', '.join(names)} looks at images, and none were given",
            code="REPAIR_NEEDS_DATA",
            hint="add --data DIR; labels are used for the report alone",
        )


def check_training_images(options: PruneOptions, *, images: bool) -> None:
    """Raise `InputError` for a method that trains without images."""
    if not images:
        raise InputError(
            f"the method {options.method} trains the model, and no images were given",
            code="SIGNAL_NEEDS_DATA",
            hint="add --data DIR",
        )


def _check_importance(options: PruneOptions) -> None:
    name = chosen_importance(options, data=False)
    if name is not None and name in LOOKING_AT_IMAGES["importance"]:
        raise no_importance_images(name)


def no_training_images(epochs: int) -> InputError:
    """Return the error of a training after the cut that has nothing to train on."""
    return InputError(
        f"--epochs {epochs} trains the model, and no images were given",
        code="SIGNAL_NEEDS_DATA",
        hint="add --data DIR",
    )


def _check_signal(signal: str) -> None:
    if signal != AUTO and looks_at_images(signal):
        raise no_images(signal)


def no_images(signal: str) -> InputError:
    """Return the error of a signal that has nothing to look at."""
    return InputError(
        f"the signal {signal} looks at images, and none were given",
        code="SIGNAL_NEEDS_DATA",
        hint="add --data DIR, or use a signal of the weights alone (l1, l2, bn-gamma)",
    )


def no_sweep_images() -> InputError:
    """Return the error of a sweep that has nothing to measure on."""
    return InputError(
        "a sweep measures loss and accuracy on images, and none were given",
        code="SWEEP_NEEDS_DATA",
        hint="add --data DIR",
    )


TABLES = (".csv", ".json")
"""What a sweep writes."""


def check_table(table: Path) -> None:
    """Raise `InputError` for the name of a sweep's table that names no format."""
    if table.suffix.lower() not in TABLES:
        raise InputError(
            f"a sweep writes no model, and the suffix {table.suffix!r} names no table",
            code="UNWRITABLE_OUTPUT",
            where=str(table),
            hint=f"end the name in one of {', '.join(TABLES)}, or leave --out out",
        )
