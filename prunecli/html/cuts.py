"""The page of a pruned model, or of the plan of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import budget_text, format_cost, format_quantity
from prunecli.cost.kinds import cost_label, in_order
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.blocks import deleted_blocks
from prunecli.html.drawing import drawing
from prunecli.html.methods import iterative_sections, learning_sections
from prunecli.html.page import page
from prunecli.html.parts import Bar, Cell, Facts, Grid, Numbers, Section
from prunecli.html.sweeps import trials_grid
from prunecli.html.words import (
    command_fact,
    dead_sections,
    folded,
    frozen_sections,
    number,
    place_text,
    reference_text,
    share_bar,
    sparsity_sections,
)
from prunecli.options.granularity import WEIGHT
from prunecli.pictures import (
    candidates_picture,
    kept_picture,
    latency_picture,
)
from prunecli.pictures.candidates import ranked
from prunecli.report import ChoiceReport
from prunecli.report.networks import MASKED
from prunecli.wording import counted, images_text, percent, verb

if TYPE_CHECKING:
    from prunecli.report import (
        CutCost,
        LatencyReport,
        LearningReport,
        PruneReport,
        RepairReport,
        SearchReport,
        Verified,
    )


def cut_page(report: PruneReport, *, command: str = "") -> str:
    """Return the page of a pruned model, or of the plan of one, as `command` made it."""
    done = "plan to prune" if report.output is None else "pruned"
    kept = (
        f"to {percent(report.cost.kept['flops'])} of the FLOPs"
        if report.sparsity is None
        else f"by {percent(report.sparsity.sparsity)} of the weights"
    )
    sections = [
        _glance(report, command),
        *warning_sections(report.warnings),
        *_layers(report),
        *sparsity_sections(report.sparsity, report.architecture),
        *iterative_sections(report.iterative),
        *learning_sections(report),
        *_latency(report.latency),
        *_candidates(report.candidates),
        *deleted_blocks(report.blocks),
        *_repair(report.repair),
        *dead_sections(report.dead),
        *_groups(report),
        *frozen_sections(report.frozen),
    ]
    return page(f"{report.architecture}: {done} {kept}", sections, made_by=made_by("prune"))


def _glance(report: PruneReport, command: str) -> Section:
    cost, verified = report.cost, report.verified
    leading = [_verified_figure(verified), *_accuracy_figures(report)]
    figures = [
        (percent(cost.kept.get(kind, 1.0)), f"of the {cost_label(kind)} kept", _change(cost, kind))
        for kind in ("flops", "params")
    ]
    facts = {
        "model": report.architecture,
        **_budget(report),
        **_chosen(report),
        **({} if verified is None else {"compared with": reference_text(verified)}),
        **({} if report.training is None else {"in training": report.training.statement}),
        **({"model class": _MODES[report.mode]} if report.mode in _MODES else {}),
        "seconds": ", ".join(f"{name} {spent:.2f}" for name, spent in report.seconds.items()),
        "written to": "nothing" if report.output is None else place_text(report.output),
        **command_fact(command),
    }
    numbers = Numbers((*leading, *figures), leading=len(leading))
    return Section("Result", "", (numbers, _costs(cost, report.latency), Facts(facts)), rank=1)


def _verified_figure(verified: Verified | None) -> tuple[str, str, str]:
    if verified is None:
        return "Plan only", "nothing was pruned", "the result is verified when it is made"
    scope = f"for {verified.scope}; " if verified.by_structure else ""
    return "Verified", MASKED, f"{scope}max relative error {verified.error}"


def _accuracy_figures(report: PruneReport) -> list[tuple[str, str, str]]:
    """Return the accuracy of the result, where one was measured on the way."""
    repair, search = report.repair, report.candidates
    at_once = report.learning is not None and not report.learning.search_epochs
    when = "before training" if at_once else "before"
    for trained in (report.iterative, report.learning):
        if trained is not None and trained.accuracy is not None:
            before = f"{percent(trained.accuracy.before)} {when}"
            note = f"{before}, on {trained.images:,} held-out images"
            return [(percent(trained.accuracy.after), "accuracy", note)]
    if repair is not None and repair.steps:
        note = f"{percent(repair.steps[0].accuracy)} before, on {images_text(repair.measured)}"
        return [(percent(repair.steps[-1].accuracy), "accuracy after repair", note)]
    chosen = [] if search is None else [t for t in search.trials if t.signal == search.chosen]
    return [
        (percent(trial.final.accuracy), "accuracy", f"on {trial.final.images:,} images")
        for trial in chosen
        if trial.final is not None
    ]


_MODES = {
    "module": "the model's own class, with narrower layers",
    "graph": "the traced graph, rewritten with the kept sizes",
}


def _budget(report: PruneReport) -> dict[str, str]:
    if report.sparsity is not None:
        if report.sparsity.granularity != WEIGHT:
            return {"budget": f"{report.sparsity.granularity} along the inputs"}
        return {"budget": f"{percent(report.plan.get('sparsity'))} of the weights set to zero"}
    text = budget_text(report.plan.get("budget"))
    met = [
        f"{cost_label(kind)} {percent(report.cost.kept[kind])}"
        for kind in report.plan.get("budget", {})
        if kind in report.cost.kept
    ]
    return {"budget": f"{text}; kept: {', '.join(met)}"} if text else {}


def _chosen(report: PruneReport) -> dict[str, str]:
    best = "" if report.candidates is None else ", the best of those tried"
    looked = "" if report.importance is None else f" (importance of layers: {report.importance})"
    aligned = {} if report.sparsity is not None else {"width alignment": report.align}
    choice = report.choice or ChoiceReport(method="", why_method="")
    return {
        **({} if report.learning is None else {"method": _method_text(report.learning)}),
        "importance criterion": f"{report.signal}{best}",
        "budget distributed": f"{report.allocation}{looked}",
        **({"repaired by": ", ".join(choice.repair)} if choice.repair else {}),
        **({"why these": choice.why} if choice.why else {}),
        **({"method": f"{choice.method} ({choice.why_method})"} if choice.method else {}),
        **aligned,
    }


def _method_text(learning: LearningReport) -> str:
    if not learning.search_epochs:
        return f"{learning.method}, then {counted(learning.epochs, 'epoch')} of training"
    return f"{learning.method}, {counted(learning.epochs, 'epoch')}"


def _change(cost: CutCost, kind: str) -> str:
    before, after = (format_cost(kind, one[kind] or 0.0) for one in (cost.before, cost.after))
    return f"{before} before, {after} after"


def _costs(cost: CutCost, latency: LatencyReport | None) -> Grid:
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
    caption = "" if latency is None else f"latency: {_batch_text(latency)}"
    return Grid(("cost", ">before", ">after", "kept"), tuple(rows), caption)


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
        "layer", "operator", ">channels", ">kept", "kept", ">FLOPs", ">FLOPs kept", ">parameters",
        ">parameters kept", "not pruned because",
    )  # fmt: skip
    whole = sum(layer.kept == layer.channels for layer in layers)
    text = (
        f"{counted(len(layers), 'layer')} in order of execution. {whole:,} of them "
        f"{verb(whole, 'keeps', 'keep')} all channels."
    )
    parts = (drawing(kept_picture, report), folded("All layers", Grid(header, tuple(rows))))
    return [Section("Layers", text, parts, rank=1)]


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
    caption = (
        "FLOPs and parameters: the share of the original model removed if the whole group is "
        "removed"
    )
    text = "The channels of one group can only be pruned together."
    grid = Grid(header, tuple(rows), caption)
    return [Section("Channel groups", text, (folded("All channel groups", grid),), rank=3)]


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
    text = (
        f"Times are {_batch_text(latency)}, in ONNX Runtime on this machine's CPU with {threads}."
    )
    if latency.asked is not None:
        text += f" The budget was {percent(latency.asked)} of the original latency."
        within = latency.met and (latency.measured_kept or 0.0) > latency.asked
        text += _WITHIN if within else _MET[latency.met]
    if latency.error is not None:
        text += f" The prediction is off by {100 * latency.error:+.1f} % of the measured latency."
    header = ("", ">original, ms", ">pruned, ms", ">share of the original", ">95 % interval")
    grid = Grid(header, tuple(rows), f"ms: {_batch_text(latency)}")
    return [Section("Latency", text, (drawing(latency_picture, latency), grid))]


def _batch_text(latency: LatencyReport) -> str:
    return f"milliseconds per batch of {counted(latency.batch, 'image')}"


_MET = {None: "", True: " It was met.", False: " It was missed."}
_WITHIN = " It was met within the timing error and a tolerance of 5 %."


def _candidates(search: SearchReport | None) -> list[Section]:
    if search is None:
        return []
    text = (
        f"The model was pruned with {search.chosen}. Of the criteria tried it has the lowest "
        f"calibrated loss on {search.images:,} {images_text(search.measured)}."
    )
    trials = (search.dense, *ranked(search))
    grid = trials_grid(trials, repaired=any(trial.repaired is not None for trial in trials))
    return [Section("Criteria tried", text, (drawing(candidates_picture, search), grid))]


_STEPS = {"dense": "original", "cut": "pruned"}


def _repair(repair: RepairReport | None) -> list[Section]:
    if repair is None:
        return []
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            _STEPS.get(step.name, step.name),
            f"{step.loss:.4f}",
            Bar(step.accuracy, percent(step.accuracy)),
            f"{step.layers:,}",
            f"{step.seconds:.1f}",
            ", ".join(f"{count}: {reason}" for reason, count in step.skipped.items()),
        )
        for step in repair.steps
    )
    text = (
        f"The pruned model was repaired with {repair.images:,} training images and scored on "
        f"{images_text(repair.measured)}."
    )
    header = ("step", ">loss", "accuracy", ">layers", ">seconds", "layers not repaired")
    return [Section("Repair", text, (Grid(header, rows),))]
