"""What `prune` says about a cut, the trials before it and the repairs after it."""

import math
from collections.abc import Iterator, Sequence

from rich.table import Table

from prunecli.budget import format_cost
from prunecli.cost.kinds import cost_label, in_order
from prunecli.report import (
    CutCost,
    GroupReport,
    LatencyReport,
    PruneReport,
    RepairReport,
    SearchReport,
    SweepReport,
    Trial,
)
from prunecli.wording import images_text, percent

from .block_tables import block_facts, blocks_parts
from .method_tables import iterative_facts, iterative_parts, learning_facts, learning_parts
from .table_parts import (
    Parts,
    add_rest,
    bare_percent,
    dead_parts,
    fact_rows,
    frozen_parts,
    grid,
    preparation_facts,
    seconds_text,
    shorten,
    shown_facts,
    sparsity_facts,
    sparsity_parts,
)

UNIFORM, AUTO, DENSE, NAMED = "uniform", "auto", "dense", "named"
UNEVEN = 0.98
"""Kept shares that differ by more than the rest of this are not what people call uniform."""

OUTPUT = "output of the model"
"""Why the last layer stays as it is: in every model, so that it is not worth a line."""


def prune_parts(report: PruneReport, rows: int) -> Parts:
    """Return what most people want to know of a pruned model, in about ten lines.

    A dry run shows the channel groups as well: they are what it was run for.
    """
    facts = {
        "model": report.architecture,
        **_kept_facts(report.cost),
        "removed by": _choice_text(report),
        **preparation_facts(report.preparation),
        **_method_facts(report),
        **({} if report.sparsity is None else sparsity_facts(report.sparsity)),
        **_step_facts(report),
        **_frozen_facts(report),
        **_outcome_facts(report),
    }
    plan = report.output is None and report.sparsity is None
    return [*([group_table(report.groups, rows)] if plan else []), fact_rows(facts)]


def prune_details(report: PruneReport) -> Parts:
    """Return everything that is known of a pruned model: all rows of all tables."""
    facts = {
        "model": report.architecture,
        "removed by": f"{_choice_text(report)}; align {report.align}",
        **({} if report.sparsity is None else sparsity_facts(report.sparsity)),
        **_outcome_facts(report),
        **({} if report.verified is None else {"verified by": report.verified.method}),
        **({} if report.training is None else {"in training": report.training.statement}),
        "seconds": seconds_text(report.seconds),
    }
    return [
        cut_table(report.cost),
        *sparsity_parts(report.sparsity, None),
        *([group_table(report.groups, None)] if report.sparsity is None else []),
        *frozen_parts(report.frozen, None),
        *([] if report.candidates is None else [candidate_table(report.candidates)]),
        *([] if report.dead is None else dead_parts(report.dead, None)),
        *([] if report.blocks is None else blocks_parts(report.blocks)),
        *([] if report.repair is None else [repair_table(report.repair)]),
        *([] if report.iterative is None else iterative_parts(report.iterative)),
        *([] if report.learning is None else learning_parts(report.learning)),
        *([] if report.latency is None else [latency_table(report.latency)]),
        fact_rows(facts),
    ]


def _kept_facts(cost: CutCost) -> dict[str, str]:
    """Return a line for each cost: before, after and the share that is kept."""
    return {
        label: f"{before} -> {after} ({kept} kept)" for label, before, after, kept in _costs(cost)
    }


def _choice_text(report: PruneReport) -> str:
    """Say what chose the channels and repaired, why, and what made widths uneven."""
    taken = "" if report.candidates is None else " (auto)"
    looked = "" if report.importance is None else f" ({report.importance})"
    choice, learning = report.choice, report.learning
    chosen = f"{report.signal}{taken}"
    if learning is not None and learning.search_epochs:
        chosen = f"{learning.method} ({chosen})"
    repairs = "" if choice is None else "".join(f", {name}" for name in choice.repair)
    why = "" if choice is None or choice.why in ("", NAMED) else f" ({choice.why})"
    by = f"{chosen}, {report.allocation}{looked}{repairs}{why}"
    return f"{by}{_uneven_text(report)}"


def _method_facts(report: PruneReport) -> dict[str, str]:
    """Name the method of a model that is trained, and why it is that one."""
    choice = report.choice
    if choice is None or choice.why_method == NAMED or report.learning is None:
        return {}
    return {"method": f"{choice.method} ({choice.why_method})"}


def _uneven_text(report: PruneReport) -> str:
    """Say why layers keep unlike shares although the allocation is called uniform."""
    shares = [group.after / group.before for group in report.groups if group.after]
    low, high = min(shares, default=1.0), max(shares, default=1.0)
    if report.allocation != UNIFORM or report.align != AUTO or high - low < 1 - UNEVEN:
        return ""
    return (
        f": layers keep {low:.0%} to {high:.0%}, as widths are aligned to 4, 8 or 16 for speed and "
        "the rest of the budget widens some again (--align 1: even shares)"
    )


def _step_facts(report: PruneReport) -> dict[str, str]:
    """Return a line for everything that was done beside the cut."""
    facts = {} if report.blocks is None else block_facts(report.blocks)
    if report.candidates is not None:
        tried = len(report.candidates.trials)
        facts["auto"] = f"{report.candidates.chosen}, the least calibrated loss of {tried} tried"
    if report.dead is not None:
        facts["dead"] = f"{report.dead.removable} of {report.dead.channels} channels do nothing"
    if report.iterative is not None:
        facts |= iterative_facts(report.iterative)
    if report.learning is not None:
        facts |= learning_facts(report.learning)
    if report.repair is not None and report.repair.steps:
        cut, *_, last = [step for step in report.repair.steps if step.name != DENSE]
        facts["repaired"] = (
            f"accuracy {percent(cut.accuracy)} -> {percent(last.accuracy)} ({last.name}; "
            f"scored on {images_text(report.repair.measured)})"
        )
    if report.latency is not None:
        facts["latency"] = _latency_text(report.latency)
    return facts


def _latency_text(latency: LatencyReport) -> str:
    where = f"ms per batch of {latency.batch} in ONNX Runtime on this CPU"
    if latency.measured is None or latency.measured_kept is None:
        return f"{latency.dense_ms:.2f} -> {latency.slim_ms:.2f} {where}, predicted"
    row = latency.measured
    return (
        f"{row.dense_ms:.2f} -> {row.slim_ms:.2f} {where}, measured "
        f"({percent(latency.measured_kept)} kept; predicted {percent(latency.kept)})"
    )


def _frozen_facts(report: PruneReport) -> dict[str, str]:
    """Say how much was left as it is because it cannot be pruned."""
    frozen = [item for item in report.frozen if item.reason != OUTPUT]
    if not frozen:
        return {}
    share = sum(item.flops_share for item in frozen)
    places = f"{len(frozen)} layer" if len(frozen) == 1 else f"{len(frozen)} layers"
    return {"not pruned": f"{places}, {percent(share)} of the FLOPs; --verbose says why"}


def _outcome_facts(report: PruneReport) -> dict[str, str]:
    return {
        "verified": NOT_YET if report.verified is None else report.verified.statement,
        "time": f"{sum(report.seconds.values()):.1f} s",
        "written": "nothing (--dry-run)" if report.output is None else str(report.output),
        **shown_facts(report.page, report.pictures),
    }


NOT_YET = "not yet (--dry-run)"


def _costs(cost: CutCost) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, before, after and share kept of every cost that the report has."""
    for kind in in_order(cost.before):
        before, after = cost.before[kind], cost.after.get(kind)
        if before is not None and after is not None:
            kept = cost.kept.get(kind)
            share = "" if kept is None else percent(kept)
            yield cost_label(kind), format_cost(kind, before), format_cost(kind, after), share


def cut_table(cost: CutCost) -> Table:
    """Return one row per cost, before and after a cut."""
    table = grid("cost", ">before", ">after", ">kept")
    for row in _costs(cost):
        table.add_row(*row)
    return table


def repair_table(repair: RepairReport) -> Table:
    """Return one row per step of a repair."""
    table = grid("repair", ">loss", ">accuracy", ">layers", ">seconds", "left as they are")
    for step in repair.steps:
        worked = step.layers or step.skipped
        table.add_row(
            step.name,
            f"{step.loss:.4f}",
            percent(step.accuracy),
            str(step.layers) if worked else "",
            f"{step.seconds:.1f}" if worked else "",
            ", ".join(f"{count}: {reason}" for reason, count in step.skipped.items()),
        )
    table.caption = (
        f"repaired on {repair.images} training images, scored on {images_text(repair.measured)}"
    )
    return table


def latency_table(latency: LatencyReport) -> Table:
    """Return the predicted time and the measured one."""
    table = grid("latency", ">dense ms", ">slim ms", ">kept", ">95 %")
    table.add_row(
        "predicted",
        f"{latency.dense_ms:.2f}",
        f"{latency.slim_ms:.2f}",
        percent(latency.kept),
        "",
    )
    row = latency.measured
    if row is not None and latency.measured_kept is not None and latency.measured_interval:
        low, high = latency.measured_interval
        table.add_row(
            "measured",
            f"{row.dense_ms:.2f}",
            f"{row.slim_ms:.2f}",
            percent(latency.measured_kept),
            f"{100 * low:.1f} to {100 * high:.1f} %",
        )
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    table.caption = f"ONNX Runtime on this CPU, {threads}, batch {latency.batch}"
    if row is not None:
        table.caption += f", {row.clock} time"
    if latency.error is not None:
        table.caption += f"; the predicted share is off by {100 * latency.error:+.1f} %"
    return table


def candidate_table(search: SearchReport) -> Table:
    """Return one row per signal that was tried, the best first, those without a cut last."""
    repaired = any(trial.repaired is not None for trial in search.trials)
    after = (">repaired",) if repaired else ()
    table = grid("signal", ">FLOPs", ">calibrated", ">loss", ">accuracy", *after, "")
    ranked = sorted(
        search.trials, key=lambda trial: trial.final.calibrated if trial.final else math.inf
    )
    for trial in (search.dense, *ranked):
        mark = " *" if trial.signal == search.chosen else ""
        final = trial.final
        table.add_row(
            f"{shorten(trial.signal, 26)}{mark}",
            bare_percent(trial.kept.get("flops")),
            "" if final is None else f"{final.calibrated:.3f}",
            *_score_cells(trial, repaired=repaired),
        )
    table.caption = f"* selected: the least calibrated loss on {search.images} " + images_text(
        search.measured
    )
    return table


def sweep_table(report: SweepReport) -> Table:
    """Return one row per cut, in the order of the budgets, with a bar for its accuracy."""
    several = len({trial.allocation for trial in report.trials}) > 1
    repaired = (">repaired",) if report.repair else ()
    table = grid(">keep", "signal", ">FLOPs", ">params", ">loss", ">accuracy", *repaired, "")
    table.columns[1].no_wrap = True
    earlier = None
    for trial in (report.dense, *report.trials):
        asked = trial.budget.get(report.kind, {}).get("fraction")
        if earlier is not None and asked != earlier:
            table.add_section()
        earlier = asked
        name = f"{trial.signal}, {trial.allocation}" if several and trial.budget else trial.signal
        table.add_row(
            "" if asked is None else f"{asked:g}",
            shorten(name, 22),
            bare_percent(trial.kept.get("flops")),
            bare_percent(trial.kept.get("params")),
            *_score_cells(trial, repaired=bool(repaired)),
        )
    table.caption = (
        f"keep: share of the {cost_label(report.kind)}; kept and accuracy in %, on {report.images} "
        + images_text(report.measured)
        + ("" if several else f"; allocation {report.trials[0].allocation}")
    )
    return table


def _score_cells(trial: Trial, *, repaired: bool) -> list[str]:
    """Return loss, accuracy, that after the repair, and a bar for what the user would get."""
    if trial.score is None or trial.final is None:
        return ["", "", *([""] if repaired else []), "not cut"]
    after = [bare_percent(None if trial.repaired is None else trial.repaired.accuracy)]
    bar = "\u2588" * round((5 if repaired else 10) * trial.final.accuracy)
    return [
        f"{trial.score.loss:.3f}",
        bare_percent(trial.score.accuracy),
        *(after if repaired else []),
        bar,
    ]


def group_table(groups: Sequence[GroupReport], rows: int | None) -> Table:
    """Return one row per channel group, before and after."""
    table = grid("channel group", ">before", ">after", ">kept", ">FLOPs", ">parameters")
    for group in groups[:rows]:
        table.add_row(
            shorten(group.name),
            str(group.before),
            str(group.after),
            percent(group.after / group.before),
            percent(group.flops_share),
            percent(group.params_share),
        )
    add_rest(table, len(groups), rows, "groups")
    table.caption = "FLOPs, parameters: share of the model removed if the whole group is removed"
    return table
