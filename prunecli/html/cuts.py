"""The page of one cut, or of the plan of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_cost, format_quantity
from prunecli.cost.kinds import cost_label, in_order
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.page import page
from prunecli.html.parts import Bar, Cell, Drawing, Facts, Grid, Numbers, Section
from prunecli.html.sweeps import trials_grid
from prunecli.html.words import (
    budget_text,
    command_fact,
    dead_sections,
    error_text,
    folded,
    frozen_sections,
    images_text,
    number,
    percent,
    proof_text,
    share_bar,
    sparsity_sections,
)
from prunecli.pictures import (
    candidates_picture,
    kept_picture,
    latency_picture,
    removals_picture,
)
from prunecli.pictures.candidates import ranked
from prunecli.sparse.granularity import WEIGHT

if TYPE_CHECKING:
    from prunecli.report import (
        CutCost,
        IterativeReport,
        LatencyReport,
        PruneReport,
        RepairReport,
        SearchReport,
    )


def cut_page(report: PruneReport, *, command: str = "") -> str:
    """Return the page of one cut, or of the plan of one, as `command` made it."""
    planned = "plan of a cut" if report.output is None else "cut"
    kept = (
        f"{percent(report.cost.kept['flops'])} of the FLOPs"
        if report.sparsity is None
        else f"{percent(report.sparsity.sparsity)} of the weights zero"
    )
    sections = [
        _glance(report, command),
        *warning_sections(report.warnings),
        *_layers(report),
        *sparsity_sections(report.sparsity, report.architecture),
        *_iterative(report.iterative),
        *_latency(report.latency),
        *_candidates(report.candidates),
        *_repair(report.repair),
        *dead_sections(report.dead),
        *_groups(report),
        *frozen_sections(report.frozen),
    ]
    return page(f"{report.architecture}: {planned}, {kept}", sections, made_by=made_by("prune"))


def _glance(report: PruneReport, command: str) -> Section:
    cost, verified = report.cost, report.verified
    figures = [
        (percent(cost.kept.get(kind, 1.0)), f"of the {cost_label(kind)} kept", _change(cost, kind))
        for kind in ("flops", "params")
    ]
    if verified is not None:
        figures.append((error_text(verified), "error of the proof", "of its outputs"))
    facts = {
        "model": report.architecture,
        **_asked(report),
        "chosen by": _chosen(report),
        "proof": "not cut: this is the plan" if verified is None else proof_text(verified),
        **({"cut in": _MODES[report.mode]} if report.mode in _MODES else {}),
        "seconds": ", ".join(f"{name} {spent:.2f}" for name, spent in report.seconds.items()),
        "written": "nothing" if report.output is None else str(report.output),
        **command_fact(command),
    }
    parts = (Numbers(tuple(figures)), _costs(cost), Facts(facts))
    return Section("The cut", "", parts)


_MODES = {
    "module": "the network's own class, narrower",
    "graph": "the traced graph, written anew with the sizes that are left",
}


def _asked(report: PruneReport) -> dict[str, str]:
    if report.sparsity is not None:
        if report.sparsity.granularity != WEIGHT:
            return {"asked for": f"{report.sparsity.granularity} along the inputs"}
        return {"asked for": f"{percent(report.plan.get('sparsity'))} of the weights to be zero"}
    text = budget_text(report.plan.get("budget"))
    met = [
        f"{cost_label(kind)} {percent(report.cost.kept[kind])}"
        for kind in report.plan.get("budget", {})
        if kind in report.cost.kept
    ]
    return {"asked for": f"{text}; kept: {', '.join(met)}"} if text else {}


def _chosen(report: PruneReport) -> str:
    taken = "" if report.candidates is None else ", which did best of those tried"
    looked = "" if report.importance is None else f" (importance: {report.importance})"
    aligned = "" if report.sparsity is not None else f"; widths aligned: {report.align}"
    return f"signal {report.signal}{taken}; allocation {report.allocation}{looked}{aligned}"


def _change(cost: CutCost, kind: str) -> str:
    before, after = (format_cost(kind, one[kind] or 0.0) for one in (cost.before, cost.after))
    return f"{before} before, {after} after"


def _costs(cost: CutCost) -> Grid:
    rows: list[tuple[Cell, ...]] = []
    for kind in in_order(cost.before):
        before, after = cost.before[kind], cost.after.get(kind)
        if before is None or after is None:
            continue
        share = cost.kept.get(kind, after / before if before else 1.0)
        rows.append(
            (
                cost_label(kind),
                format_cost(kind, before),
                format_cost(kind, after),
                Bar(share, percent(share)),
            )
        )
    return Grid(("cost", ">before", ">after", "kept"), tuple(rows))


def _layers(report: PruneReport) -> list[Section]:
    layers = report.layers
    if not layers:
        return []
    rows: list[tuple[Cell, ...]] = [
        (
            layer.name,
            layer.operator,
            f"{layer.channels:,}",
            f"{layer.kept:,}",
            Bar(layer.kept / layer.channels, percent(layer.kept / layer.channels)),
            format_quantity(layer.flops),
            format_quantity(layer.flops_kept),
            f"{layer.params:,.0f}",
            f"{layer.params_kept:,.0f}",
            layer.reason,
        )
        for layer in layers
    ]
    header = (
        "layer", "operator", ">channels", ">kept", "kept", ">FLOPs", ">after", ">parameters",
        ">after", "whole because",
    )  # fmt: skip
    whole = sum(layer.kept == layer.channels for layer in layers)
    text = f"Of {len(layers):,} layers in the order of execution, {whole:,} keep all channels."
    parts = (Drawing(kept_picture(report)), folded("All layers", Grid(header, tuple(rows))))
    return [Section("Layers", text, parts)]


def _groups(report: PruneReport) -> list[Section]:
    if not report.groups:
        return []
    largest = max(group.flops_share for group in report.groups)
    looked = report.importance is not None
    rows: list[tuple[Cell, ...]] = [
        (
            group.name,
            f"{group.before:,}",
            f"{group.after:,}",
            Bar(group.after / group.before, percent(group.after / group.before)),
            share_bar(group.flops_share, largest),
            percent(group.params_share, digits=2),
            *([number(group.importance)] * looked),
        )
        for group in report.groups
    ]
    header = (
        "channel group", ">before", ">after", "kept", "FLOPs", ">parameters",
        *([">importance"] * looked),
    )  # fmt: skip
    caption = "FLOPs and parameters: the share of the dense network's that goes with the group"
    text = "Channels of one group can only be cut together."
    grid = Grid(header, tuple(rows), caption)
    return [Section("Channel groups", text, (folded("All channel groups", grid),))]


def _iterative(report: IterativeReport | None) -> list[Section]:
    if report is None:
        return []
    if report.accuracy is None:
        text = (
            f"About {report.planned_removals:,} removals with {report.planned_updates:,} updates "
            f"would take {report.planned_seconds:,.0f} s here. Signal: {report.criterion}."
        )
        return [Section("What would be done", text)]
    worst = max((removal.max_rel_error for removal in report.removals), default=0.0)
    text = (
        f"{len(report.removals):,} cuts, each proven with a largest relative error of {worst:.1e}. "
        f"Accuracy on {report.images:,} held-out images: {percent(report.accuracy.before)} dense, "
        f"{percent(report.accuracy.after)} at the end. Signal: {report.criterion}."
    )
    rows = tuple(
        (
            str(removal.removal),
            f"{removal.updates:,}",
            f"{removal.channels:,}",
            percent(removal.flops),
            percent(removal.params),
            f"{removal.train_loss:.4f}",
            f"{removal.loss:.4f}",
            percent(removal.accuracy),
            f"{1e3 * removal.seconds_per_update:.0f}",
        )
        for removal in report.removals
    )
    header = (
        ">removal", ">updates", ">channels", ">FLOPs left", ">parameters left", ">training loss",
        ">loss", ">accuracy", ">ms per update",
    )  # fmt: skip
    grid = Grid(header, rows, "scored on held-out images before each removal")
    return [
        Section(
            "On the way", text, (Drawing(removals_picture(report)), folded("All removals", grid))
        )
    ]


def _latency(latency: LatencyReport | None) -> list[Section]:
    if latency is None:
        return []
    rows: list[tuple[Cell, ...]] = [
        (
            "predicted",
            f"{latency.dense_ms:.3f}",
            f"{latency.slim_ms:.3f}",
            percent(latency.kept),
            "",
        )
    ]
    row = latency.measured
    if row is not None and latency.measured_interval is not None and row.dense_ms is not None:
        low, high = latency.measured_interval
        rows.append(
            (
                "measured",
                f"{row.dense_ms:.3f}",
                f"{row.slim_ms:.3f}",
                percent(latency.measured_kept),
                f"{percent(low)} to {percent(high)}",
            )
        )
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    text = f"ONNX Runtime on this machine's CPU, {threads}, batch {latency.batch}."
    if latency.asked is not None:
        met = {None: "", True: ", and that was kept", False: ", and that was missed"}[latency.met]
        if latency.met and (latency.measured_kept or 0.0) > latency.asked:
            met = ", and that was kept to within the timing and the twentieth that is let pass"
        text += f" At most {percent(latency.asked)} was asked for{met}."
    if latency.error is not None:
        text += f" The prediction is off by {100 * latency.error:+.1f} % of what was measured."
    grid = Grid(("", ">dense ms", ">slim ms", ">of the dense", ">95 % interval"), tuple(rows))
    return [Section("Latency", text, (Drawing(latency_picture(latency)), grid))]


def _candidates(search: SearchReport | None) -> list[Section]:
    if search is None:
        return []
    text = (
        f"The cut was made with {search.chosen}: the least calibrated loss on {search.images:,} "
        f"{images_text(search.measured)}."
    )
    trials = (search.dense, *ranked(search))
    grid = trials_grid(trials, repaired=any(trial.repaired is not None for trial in trials))
    return [Section("Signals tried", text, (Drawing(candidates_picture(search)), grid))]


def _repair(repair: RepairReport | None) -> list[Section]:
    if repair is None:
        return []
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            step.name,
            f"{step.loss:.4f}",
            Bar(step.accuracy, percent(step.accuracy)),
            f"{step.layers:,}",
            f"{step.seconds:.1f}",
            ", ".join(f"{count}: {reason}" for reason, count in step.skipped.items()),
        )
        for step in repair.steps
    )
    text = (
        f"Repaired on {repair.images:,} training images, scored on {images_text(repair.measured)}."
    )
    header = ("step", ">loss", "accuracy", ">layers", ">seconds", "left as they are")
    return [Section("Repair", text, (Grid(header, rows),))]
