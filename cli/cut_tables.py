"""What `prune` says about a cut, the trials before it and the repairs after it."""

import math
from collections.abc import Sequence

from rich.table import Table

from prunecli.budget import COST_NAMES, format_cost
from prunecli.report import (
    CutCost,
    GroupReport,
    IterativeReport,
    LatencyReport,
    PruneReport,
    RepairReport,
    SearchReport,
    SweepReport,
    Trial,
)

from .table_parts import Parts, add_rest, bare_percent, fact_rows, grid, percent, shorten


def allocation_text(report: PruneReport) -> str:
    """Name the allocation, and the importance of layers that it looked at."""
    if report.importance is None:
        return report.allocation
    return f"{report.allocation} ({report.importance})"


def cut_table(cost: CutCost) -> Table:
    """Return one row per cost, before and after a cut."""
    table = grid("cost", ">before", ">after", ">kept")
    for field, label in COST_NAMES.items():
        before, after = getattr(cost.before, field), getattr(cost.after, field)
        if before is None:
            continue
        kept = cost.kept.get(field)
        table.add_row(
            label,
            format_cost(field, before),
            format_cost(field, after),
            "" if kept is None else percent(kept),
        )
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
    table.caption = f"repaired on {repair.images} training images, " + SCORED[repair.measured]
    return table


def iterative_parts(report: IterativeReport, rows: int | None) -> Parts:
    """Return what was done on the way to an iterative cut, or what would be."""
    facts = {"signal": report.criterion}
    if report.accuracy is None:
        facts["to do"] = (
            f"about {report.planned_removals} removals, {report.planned_updates} updates, "
            f"{report.planned_seconds:.0f} s"
        )
        return [fact_rows(facts)]
    table = grid("removal", ">updates", ">channels", ">FLOPs", ">loss", ">accuracy", ">ms/update")
    every = 1 if rows is None else -(-len(report.removals) // SHOWN_REMOVALS)
    for removal in report.removals[::-every][::-1]:
        table.add_row(
            str(removal.removal),
            str(removal.updates),
            str(removal.channels),
            percent(removal.flops),
            f"{removal.loss:.4f}",
            percent(removal.accuracy),
            f"{removal.seconds_per_update * 1e3:.0f}",
        )
    table.caption = f"scored on {report.images} held-out images before each removal"
    before, after = report.seconds_per_update or (0.0, 0.0)
    worst = max(removal.max_rel_error for removal in report.removals)
    facts["cuts"] = f"{len(report.removals)}, each proven, largest relative error {worst:.1e}"
    facts["held out"] = f"{percent(report.accuracy.before)} -> {percent(report.accuracy.after)}"
    facts["one update"] = f"{before * 1e3:.0f} ms -> {after * 1e3:.0f} ms"
    return [table, fact_rows(facts)]


SHOWN_REMOVALS = 8


"""Rows about removals that are shown without `--verbose`."""


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
    table.caption = (
        f"* taken: the least calibrated loss on {search.images} " + MEASURED[search.measured]
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
        f"keep: share of the {COST_NAMES[report.kind]}; kept and right in %, on {report.images} "
        + MEASURED[report.measured]
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


MEASURED = {
    "held_out": "images held out from training",
    "calibration": "images that the channels were chosen on",
}


SCORED = {
    "held_out": "scored on images held out from training",
    "calibration": "scored on the same images",
}


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
    table.caption = "FLOPs, parameters: the shares that go with the group"
    return table
