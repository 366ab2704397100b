"""Reports as tables of 80 columns at most; building them prints nothing."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import singledispatch
from operator import itemgetter
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunecli.budget import format_cost, format_quantity
from prunecli.report import (
    AnalyzeReport,
    BenchmarkRow,
    Cost,
    CutCost,
    DatasetAnalysis,
    DeadReport,
    DeadScores,
    Evaluation,
    ExportReport,
    FinetuneReport,
    FrozenReport,
    GroupReport,
    ImportanceReport,
    IterativeReport,
    LatencyReport,
    LearnabilityReport,
    ModelAnalysis,
    OracleReport,
    PruneReport,
    Reduction,
    RepairReport,
    SearchReport,
    SparsityReport,
    SweepReport,
    Trial,
)

from .demo import DemoReport
from .env import EnvReport
from .methods import MethodsReport

Parts = list[RenderableType]

BAR = "\u2588"

# What people call the fields of a cost, in the order in which they are shown.
COSTS = (
    ("flops", "FLOPs"),
    ("params", "parameters"),
    ("activations", "activations"),
    ("bytes", "bytes"),
    ("channels", "channels"),
    ("latency", "predicted latency"),
)


@singledispatch
def view(report: Any, *, rows: int | None) -> Parts:
    """Return what is shown of a report; `rows` limits the long tables (None: all rows)."""
    raise NotImplementedError(type(report).__name__)


@view.register
def _(report: PruneReport, *, rows: int | None) -> Parts:
    verified = report.verified
    proof = (
        "not cut yet: --dry-run"
        if verified is None
        else f"{verified.method}, largest relative error {verified.max_rel_error:.1e}"
    )
    taken = "" if report.candidates is None else " (auto)"
    facts = {
        "model": report.architecture,
        "chosen by": f"{report.signal}{taken}, {_allocation(report)}; align {report.align}",
        **({} if report.sparsity is None else _sparsity_facts(report.sparsity)),
        "proof": proof,
        "seconds": _seconds(report.seconds),
        "written": "nothing: --dry-run" if report.output is None else str(report.output),
    }
    return [
        _cut_table(report.cost),
        *_sparsity_parts(report.sparsity, rows),
        *([_group_table(report.groups, rows)] if report.sparsity is None else []),
        *_frozen_parts(report.frozen, rows),
        *([] if report.candidates is None else [_candidate_table(report.candidates)]),
        *([] if report.dead is None else _dead_parts(report.dead, rows)),
        *([] if report.repair is None else [_repair_table(report.repair)]),
        *([] if report.iterative is None else _iterative_parts(report.iterative, rows)),
        *([] if report.latency is None else [_latency_table(report.latency)]),
        _facts(facts),
    ]


@view.register
def _(report: SweepReport, *, rows: int | None) -> Parts:
    facts = {"model": report.architecture, "cost": _cost_line(report.cost)}
    facts |= {"table": str(report.table)} if report.table else {}
    facts |= {"pictures": ", ".join(map(str, report.pictures))} if report.pictures else {}
    problems = dict.fromkeys(trial.problem for trial in report.trials if trial.problem)
    facts |= {"not cut": "; ".join(problems)} if problems else {}
    facts["written"] = "no network: a sweep only measures"
    facts |= {"next": report.next_command} if report.next_command else {}
    return [_sweep_table(report), _facts(facts)]


@view.register
def _(report: FinetuneReport, *, rows: int | None) -> Parts:
    table = _table("epoch", ">train loss", ">loss", ">accuracy", ">rate", ">images/s", ">seconds")
    for epoch in report.epochs:
        mark = " *" if epoch.epoch == report.best_epoch else ""
        table.add_row(
            f"{epoch.epoch}{mark}",
            f"{epoch.train_loss:.4f}",
            f"{epoch.loss:.4f}",
            _percent(epoch.accuracy),
            f"{epoch.learning_rate:.2g}",
            f"{epoch.images_per_second:.0f}",
            f"{epoch.seconds:.1f}",
        )
    change = report.accuracy
    facts = {
        "accuracy": f"{_percent(change.before)} -> {_percent(change.after)} on {change.split}",
        "held out": f"{_percent(report.held_out.before)} -> {_percent(report.held_out.after)}",
        "best epoch": f"{report.best_epoch} (marked *), chosen on held-out images",
        "log": str(report.log) if report.log else "none",
        **({} if report.sparsity is None else _sparsity_facts(report.sparsity)),
        "written": str(report.output),
    }
    return [table, *_sparsity_parts(report.sparsity, rows), _facts(facts)]


@view.register
def _(report: Evaluation, *, rows: int | None) -> Parts:
    facts = {
        "accuracy": _percent(report.accuracy),
        "top-5": _percent(report.top5),
        "loss": f"{report.loss:.4f}",
        "images": f"{report.count} ({report.split})" if report.split else str(report.count),
    }
    worst_first = sorted(report.per_class.items(), key=lambda item: item[1])
    table = _table("class", ">accuracy")
    for name, accuracy in worst_first[:rows]:
        table.add_row(name, _percent(accuracy))
    _add_rest(table, len(worst_first), rows, "classes")
    return [_facts(facts), *([table] if worst_first else [])]


@view.register
def _(report: ExportReport, *, rows: int | None) -> Parts:
    parity = report.parity
    facts = {
        "ONNX": f"opset {report.opset}, {_bytes(report.bytes)}",
        "parity": f"largest relative error {parity.max_rel_error:.1e} "
        f"over {parity.inputs} random inputs",
        "written": str(report.output),
    }
    tables = [_benchmark_table(report.benchmark)] if report.benchmark else []
    return [*tables, _facts(facts)]


@view.register
def _(report: AnalyzeReport, *, rows: int | None) -> Parts:
    parts: Parts = []
    if report.dataset is not None:
        parts += _dataset_parts(report.dataset, rows)
    if report.model is not None:
        parts += _model_parts(report.model, rows)
    if report.learnability is not None:
        parts += _learnability_parts(report.learnability, rows)
    if report.pictures:
        parts.append(_facts({"pictures": ", ".join(map(str, report.pictures))}))
    return parts


@view.register
def _(report: MethodsReport, *, rows: int | None) -> Parts:
    parts: Parts = []
    for kind in dict.fromkeys(method.kind for method in report.methods):
        table = _table(kind, "what it is", "source")
        entries = [method for method in report.methods if method.kind == kind]
        for method in entries[:rows]:
            table.add_row(method.name, method.summary, method.source)
        _add_rest(table, len(entries), rows, "entries")
        parts.append(table)
    return parts


@view.register
def _(report: EnvReport, *, rows: int | None) -> Parts:
    facts = {
        "python": report.python,
        "platform": report.platform,
        "CPUs": str(report.cpus),
        "CUDA devices": ", ".join(report.cuda) or "none",
    }
    for name, loads in report.providers.items():
        facts[name] = "loads" if loads else "does not load"
    for package, version in report.packages.items():
        facts[package] = version or "not installed"
    return [_facts(facts)]


@view.register
def _(report: DemoReport, *, rows: int | None) -> Parts:
    table = _table("what was run", ">seconds")
    for step in report.steps:
        table.add_row(step.command, f"{step.seconds:.1f}")
    return [table, _facts({"in all": f"{report.seconds:.0f} s", "files in": f"{report.folder}/"})]


def _allocation(report: PruneReport) -> str:
    """Name the allocation, and the importance of layers that it looked at."""
    if report.importance is None:
        return report.allocation
    return f"{report.allocation} ({report.importance})"


def _cut_table(cost: CutCost) -> Table:
    table = _table("cost", ">before", ">after", ">kept")
    for field, label in COSTS:
        before, after = getattr(cost.before, field), getattr(cost.after, field)
        if before is None:
            continue
        kept = cost.kept.get(field)
        table.add_row(
            label,
            format_cost(field, before),
            format_cost(field, after),
            "" if kept is None else _percent(kept),
        )
    return table


def _repair_table(repair: RepairReport) -> Table:
    table = _table("repair", ">loss", ">accuracy", ">layers", ">seconds", "left as they are")
    for step in repair.steps:
        worked = step.layers or step.skipped
        table.add_row(
            step.name,
            f"{step.loss:.4f}",
            _percent(step.accuracy),
            str(step.layers) if worked else "",
            f"{step.seconds:.1f}" if worked else "",
            ", ".join(f"{count}: {reason}" for reason, count in step.skipped.items()),
        )
    table.caption = f"repaired on {repair.images} training images, " + SCORED[repair.measured]
    return table


def _iterative_parts(report: IterativeReport, rows: int | None) -> Parts:
    facts = {"signal": report.criterion}
    if report.accuracy is None:
        facts["to do"] = (
            f"about {report.planned_removals} removals, {report.planned_updates} updates, "
            f"{report.planned_seconds:.0f} s"
        )
        return [_facts(facts)]
    table = _table("removal", ">updates", ">channels", ">FLOPs", ">loss", ">accuracy", ">ms/update")
    every = 1 if rows is None else -(-len(report.removals) // SHOWN_REMOVALS)
    for removal in report.removals[::-every][::-1]:
        table.add_row(
            str(removal.removal),
            str(removal.updates),
            str(removal.channels),
            _percent(removal.flops),
            f"{removal.loss:.4f}",
            _percent(removal.accuracy),
            f"{removal.seconds_per_update * 1e3:.0f}",
        )
    table.caption = f"scored on {report.images} held-out images before each removal"
    before, after = report.seconds_per_update or (0.0, 0.0)
    worst = max(removal.max_rel_error for removal in report.removals)
    facts["cuts"] = f"{len(report.removals)}, each proven, largest relative error {worst:.1e}"
    facts["held out"] = f"{_percent(report.accuracy.before)} -> {_percent(report.accuracy.after)}"
    facts["one update"] = f"{before * 1e3:.0f} ms -> {after * 1e3:.0f} ms"
    return [table, _facts(facts)]


SHOWN_REMOVALS = 8
"""Rows about removals that are shown without `--verbose`."""


def _latency_table(latency: LatencyReport) -> Table:
    table = _table("latency", ">dense ms", ">slim ms", ">kept", ">95 %")
    table.add_row(
        "predicted",
        f"{latency.dense_ms:.2f}",
        f"{latency.slim_ms:.2f}",
        _percent(latency.kept),
        "",
    )
    row = latency.measured
    if row is not None and latency.measured_kept is not None and latency.measured_interval:
        low, high = latency.measured_interval
        table.add_row(
            "measured",
            f"{row.dense_ms:.2f}",
            f"{row.slim_ms:.2f}",
            _percent(latency.measured_kept),
            f"{100 * low:.1f} to {100 * high:.1f} %",
        )
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    table.caption = f"ONNX Runtime on this CPU, {threads}, batch {latency.batch}"
    if latency.error is not None:
        table.caption += f"; the predicted share is off by {100 * latency.error:+.1f} %"
    return table


def _candidate_table(search: SearchReport) -> Table:
    """Return one row per signal that was tried, the best first, those without a cut last."""
    repaired = any(trial.repaired is not None for trial in search.trials)
    after = (">repaired",) if repaired else ()
    table = _table("signal", ">FLOPs", ">calibrated", ">loss", ">accuracy", *after, "")
    ranked = sorted(
        search.trials, key=lambda trial: trial.final.calibrated if trial.final else math.inf
    )
    for trial in (search.dense, *ranked):
        mark = " *" if trial.signal == search.chosen else ""
        final = trial.final
        table.add_row(
            f"{_shorten(trial.signal, 26)}{mark}",
            _bare(trial.kept.get("flops")),
            "" if final is None else f"{final.calibrated:.3f}",
            *_score_cells(trial, repaired=repaired),
        )
    table.caption = (
        f"* taken: the least calibrated loss on {search.images} " + MEASURED[search.measured]
    )
    return table


def _sweep_table(report: SweepReport) -> Table:
    """Return one row per cut, in the order of the budgets, with a bar for its accuracy."""
    several = len({trial.allocation for trial in report.trials}) > 1
    repaired = (">repaired",) if report.repair else ()
    table = _table(">keep", "signal", ">FLOPs", ">params", ">loss", ">accuracy", *repaired, "")
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
            _shorten(name, 22),
            _bare(trial.kept.get("flops")),
            _bare(trial.kept.get("params")),
            *_score_cells(trial, repaired=bool(repaired)),
        )
    table.caption = (
        f"keep: share of the {dict(COSTS)[report.kind]}; kept and right in %, on {report.images} "
        + MEASURED[report.measured]
        + ("" if several else f"; allocation {report.trials[0].allocation}")
    )
    return table


def _score_cells(trial: Trial, *, repaired: bool) -> list[str]:
    """Return loss, accuracy, that after the repair, and a bar for what the user would get."""
    if trial.score is None or trial.final is None:
        return ["", "", *([""] if repaired else []), "not cut"]
    after = [_bare(None if trial.repaired is None else trial.repaired.accuracy)]
    bar = "\u2588" * round((5 if repaired else 10) * trial.final.accuracy)
    return [
        f"{trial.score.loss:.3f}",
        _bare(trial.score.accuracy),
        *(after if repaired else []),
        bar,
    ]


def _bare(share: float | None) -> str:
    """Write a share in per cent without the sign."""
    return "" if share is None else f"{100 * share:.1f}"


MEASURED = {
    "held_out": "images held out from training",
    "calibration": "images that the channels were chosen on",
}


SCORED = {
    "held_out": "scored on images held out from training",
    "calibration": "scored on the same images",
}


def _sparsity_parts(sparsity: SparsityReport | None, rows: int | None) -> Parts:
    """Return one row per layer with its weights and those that are kept."""
    if sparsity is None:
        return []
    table = _table("layer", ">weights", ">kept", ">zero", "shape")
    for layer in sparsity.layers[:rows]:
        table.add_row(
            _shorten(layer.name.removesuffix(".weight")),
            str(layer.weights),
            str(layer.kept),
            _percent(1 - layer.kept / layer.weights),
            "x".join(map(str, layer.shape)),
        )
    _add_rest(table, len(sparsity.layers), rows, "layers")
    return [table]


def _sparsity_facts(sparsity: SparsityReport) -> dict[str, str]:
    of = f"{sparsity.weights - sparsity.kept} of {sparsity.weights} weights"
    facts = {"zero": f"{_percent(sparsity.sparsity)} ({of}), {sparsity.granularity}"}
    if sparsity.point:
        facts["saliency"] = f"{sparsity.point}, of single weights"
    if sparsity.bytes_before is not None and sparsity.bytes_after is not None:
        facts["file"] = f"{_bytes(sparsity.bytes_before)} -> {_bytes(sparsity.bytes_after)}"
    return facts


def _group_table(groups: Sequence[GroupReport], rows: int | None) -> Table:
    table = _table("channel group", ">before", ">after", ">kept", ">FLOPs", ">parameters")
    for group in groups[:rows]:
        table.add_row(
            _shorten(group.name),
            str(group.before),
            str(group.after),
            _percent(group.after / group.before),
            _percent(group.flops_share),
            _percent(group.params_share),
        )
    _add_rest(table, len(groups), rows, "groups")
    table.caption = "FLOPs, parameters: the shares that go with the group"
    return table


def _frozen_parts(frozen: Sequence[FrozenReport], rows: int | None) -> Parts:
    if not frozen:
        return []
    table = _table("cannot be cut", "because", ">FLOPs")
    for item in frozen[:rows]:
        reason = item.reason if item.where is None else f"{item.reason} ({item.where})"
        table.add_row(_shorten(item.name, 24), reason, _percent(item.flops_share))
    _add_rest(table, len(frozen), rows, "places")
    return [table]


def _dead_parts(dead: DeadReport, rows: int | None) -> Parts:
    """Return the dead channels of every group that has some, and what their removal did."""
    below = dead.threshold is not None
    columns = ("constant", "unread", *(["below"] if below else []), "stay")
    table = _table("dead channels", ">width", *(f">{name}" for name in columns), ">FLOPs", "which")
    for group in dead.groups[:rows]:
        kinds = (group.constant, group.unread, *([group.below] if below else []), group.stays)
        table.add_row(
            _shorten(group.name, 24),
            str(group.width),
            *(str(len(kind)) for kind in kinds),
            f"{100 * group.flops_share:.1f}",
            _indices(sorted((*group.constant, *group.unread, *group.below)), rows),
        )
    _add_rest(table, len(dead.groups), rows, "groups")
    table.caption = "FLOPs: % of the network's that goes with those that need not stay"
    looked = f"{dead.images} images" if dead.images else "the weights alone"
    facts = {"dead": f"{dead.removable} of {dead.channels} channels can go, from {looked}"}
    for reason, count in _stays(dead).items():
        facts.setdefault("stay", "")
        facts["stay"] += f"{'; ' if facts['stay'] else ''}{count}: {reason}"
    if dead.borders:
        facts["borders"] = (
            f"{len(dead.borders)} layers, outputs off by {max(dead.borders.values()):.2g} at most"
        )
    if dead.scores is not None:
        facts["without them"] = _scores(dead.scores)
    return [*([table] if dead.groups else []), _facts(facts)]


def _stays(dead: DeadReport) -> dict[str, int]:
    reasons = [reason for group in dead.groups for reason in group.stays.values()]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def _scores(scores: DeadScores) -> str:
    images = "held-out images" if scores.measured == "held_out" else "the same images"
    return (
        f"loss {scores.loss_before:.6f} -> {scores.loss_after:.6f}, accuracy "
        f"{_percent(scores.accuracy_before)} -> {_percent(scores.accuracy_after)} "
        f"on {scores.images} {images}"
    )


def _indices(found: Sequence[int], rows: int | None) -> str:
    """Write indices, runs of them short: `0-3,7`."""
    runs: list[list[int]] = []
    for at in found:
        if runs and runs[-1][1] == at - 1:
            runs[-1][1] = at
        else:
            runs.append([at, at])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in runs]
    shown = texts if rows is None else texts[:6]
    return ",".join(shown) + (",..." if len(shown) < len(texts) else "")


def _benchmark_table(benchmark: Sequence[BenchmarkRow]) -> Table:
    table = _table("device", ">batch", ">dense ms", ">slim ms", ">speed-up", ">95 %", ">FLOPs")
    for row in benchmark:
        interval = (
            ""
            if row.speedup_low is None or row.speedup_high is None
            else f"{row.speedup_low:.2f} to {row.speedup_high:.2f}"
        )
        table.add_row(
            _device(row),
            str(row.batch),
            "" if row.dense_ms is None else f"{row.dense_ms:.2f}",
            f"{row.slim_ms:.2f}",
            _times(row.speedup),
            interval,
            _times(row.flops_ratio),
        )
    threads = sorted({row.threads for row in benchmark})
    table.caption = f"medians of interleaved runs, threads: {', '.join(map(str, threads))}"
    return table


def _device(row: BenchmarkRow) -> str:
    provider = row.provider.removesuffix("ExecutionProvider")
    return row.device if provider.lower() == row.device else f"{row.device}, {provider}"


def _interval(low: float, high: float) -> str:
    # With fewer images than the score draws, every repeat draws them all.
    return f"95 % {low:.3f} to {high:.3f}" if high > low else "every image in it"


def _dataset_parts(dataset: DatasetAnalysis, rows: int | None) -> Parts:
    low, high = dataset.csg_interval
    sizes = sorted(dataset.sizes.items(), key=lambda item: -item[1])
    facts = {
        "data": f"{dataset.path} ({dataset.format})",
        "images": f"{dataset.images} in {len(dataset.classes)} classes",
        "sizes": ", ".join(f"{size} x{count}" for size, count in sizes[:4]) or "no images",
        "balance": f"{dataset.balance:.3f} (1 is even)",
        "unreadable": str(len(dataset.unreadable)),
        "duplicates": f"{len(dataset.duplicates)} groups of equal images, "
        f"{len(dataset.near_duplicates)} of nearly equal ones",
        "CSG": f"{dataset.csg:.3f}, {_interval(low, high)} (higher is harder)",
        "seen through": _seen_through(dataset.csg_settings),
    }
    if dataset.csg_votes is not None:
        facts["plain votes"] = f"{dataset.csg_votes:.3f} (the same without volumes, steadier)"
    if dataset.subset is not None:
        subset = dataset.subset
        facts["written"] = (
            f"{subset.path}: {subset.images} images, {subset.per_class} of every class at most, "
            f"chosen by {subset.rule}"
        )
    reduced = [] if dataset.reduction is None else [_reduction_table(dataset.reduction)]
    return [*_class_parts(dataset, rows), *reduced, _facts(facts)]


def _learnability_parts(report: LearnabilityReport, rows: int | None) -> Parts:
    runs = _table("run", "network", ">epochs", ">learnability", ">always", ">never", ">forgotten")
    for run in report.runs:
        runs.add_row(
            _shorten(run.name, 20),
            _shorten(run.network, 20),
            str(run.epochs),
            f"{run.learnability:.3f}",
            str(run.always),
            str(run.never),
            f"{run.forgetting:.2f}",
        )
    runs.caption = "always, never: images that were right after every epoch, after none"
    pairs = _table(
        "runs", ">images", ">Pearson", ">Spearman", ">hardest tenth", ">not always right"
    )
    for pair in report.pairs:
        values = (pair.pearson, pair.spearman, pair.overlap, pair.pearson_wrong)
        pairs.add_row(
            f"{_shorten(pair.first, 14)}, {_shorten(pair.second, 14)}",
            str(pair.images),
            *("" if value is None else f"{value:.3f}" for value in values),
        )
    pairs.caption = (
        "correlations of learnability over images; the share of the hardest tenth in common; "
        "Pearson without images that both had right throughout"
    )
    images = _table("wrong to the end, look at the label", "class", ">learnability")
    for image in report.label_errors[: rows and 5]:
        images.add_row(_shorten(image.path, 46), image.name, f"{image.learnability:.3f}")
    return [
        runs,
        *([pairs] if report.pairs else []),
        *([images] if report.label_errors else []),
    ]


def _seen_through(settings: Mapping[str, Any]) -> str:
    return (
        f"{settings['embedding']}; {settings['samples']} images of every class, "
        f"{settings['neighbours']} neighbours, volume {settings['volume']}, "
        f"{settings['repeats']} draws of {settings['images']} images"
    )


def _class_parts(dataset: DatasetAnalysis, rows: int | None) -> Parts:
    """Return the classes, the hardest first, what they are taken for, and the images to look at."""
    pairs = _table("classes taken for each other", ">similarity")
    for first, second, similarity in dataset.confused_pairs[: rows and 5]:
        pairs.add_row(f"{first} and {second}", f"{similarity:.3f}")
    hardest = sorted(dataset.difficulty, key=lambda entry: -entry.others)
    classes = _table("class", ">images", ">others' votes", "")
    counts = {entry.name: entry.count for entry in dataset.classes}
    for entry in hardest[:rows]:
        bar = BAR * round(20 * entry.others)
        count = str(counts.get(entry.name, ""))
        classes.add_row(_shorten(entry.name), count, _percent(entry.others), bar)
    _add_rest(classes, len(hardest), rows, "classes")
    images = _table("look at these images", "class", "looks like")
    # The worst of every class first, then the second of every class, and so on.
    seen: Counter[str] = Counter()
    turns = []
    for image in dataset.confusing:
        turns.append((seen[image.name], -image.share))
        seen[image.name] += 1
    worst = [
        image for _, image in sorted(zip(turns, dataset.confusing, strict=True), key=itemgetter(0))
    ]
    for image in worst[: rows and 5]:
        images.add_row(_shorten(image.path, 46), image.name, image.looks_like)
    return [
        *([classes] if hardest else []),
        *([pairs] if dataset.confused_pairs else []),
        *([images] if worst else []),
    ]


def _reduction_table(reduction: Reduction) -> Table:
    table = _table(">images per class", ">CSG", ">sd", "")
    highest = max(*(step.score for step in reduction.steps), reduction.whole, 1e-12)
    for step in reduction.steps:
        mark = " *" if step.images_per_class == reduction.smallest else ""
        table.add_row(
            f"{step.images_per_class}{mark}",
            f"{step.score:.3f}",
            f"{step.deviation:.3f}",
            BAR * round(30 * step.score / highest),
        )
    found = (
        "no smaller set keeps it"
        if reduction.smallest is None
        else "* the smallest set that keeps it"
    )
    table.caption = (
        f"plain votes; all images give {reduction.whole:.3f}; {found} within "
        f"{_percent(reduction.tolerance)}"
    )
    return table


def _model_parts(model: ModelAnalysis, rows: int | None) -> Parts:
    facts = {
        "model": model.architecture,
        "cost": _cost_line(model.cost),
        "prunable": f"{_percent(model.prunable_flops)} of the FLOPs; "
        f"the lowest reachable is {_percent(model.lowest_flops)}",
    }
    if model.accuracy is not None:
        facts["accuracy"] = _percent(model.accuracy)
    if model.not_counted:
        counted = (f"{name} x{count}" for name, count in model.not_counted.items())
        facts["not counted"] = ", ".join(counted)
    if model.sparsity is not None:
        facts.update(_sparsity_facts(model.sparsity))
    oracle = [] if model.oracle is None else [_oracle_table(model.oracle)]
    importance = [] if model.importance is None else [_importance_table(model.importance, rows)]
    return [
        _analysis_table(model, rows),
        *_sparsity_parts(model.sparsity, rows),
        *oracle,
        *importance,
        *([] if model.dead is None else _dead_parts(model.dead, rows)),
        *_frozen_parts(model.frozen, rows),
        _facts(facts),
    ]


def _oracle_table(oracle: OracleReport) -> Table:
    """Return one row per signal, the best first, with a bar for its pooled correlation."""
    table = _table("signal", ">per layer", ">pooled", ">pooled, L2", "")
    found = [row for row in oracle.signals if row.against == "size"]
    for row in sorted(found, key=lambda row: -(row.pooled_l2 or 0.0)):
        values = (row.per_layer, row.pooled, row.pooled_l2)
        texts = ("" if value is None else f"{value:.2f}" for value in values)
        bar = BAR * round(10 * max(row.pooled_l2 or 0.0, 0.0))
        table.add_row(_shorten(row.signal, 32), *texts, bar)
    table.caption = (
        "Spearman's correlation with the size of the loss change when each of "
        f"{oracle.channels} channels alone is removed, on {oracle.images} images"
    )
    return table


def _importance_table(importance: ImportanceReport, rows: int | None) -> Table:
    """Return one row per group and one column per importance, each as a share of its largest."""
    table = _table("importance of", *(f">{name}" for name in importance.groups))
    found = list(importance.groups.values())
    most = [max((value for value in own.values() if value), default=1.0) for own in found]
    groups = list(found[0])
    for group in groups[:rows]:
        values = zip((own[group] for own in found), most, strict=True)
        shares = ("" if value is None else f"{value / largest:.3f}" for value, largest in values)
        table.add_row(_shorten(group), *shares)
    _add_rest(table, len(groups), rows, "groups")
    agreement = "; ".join(
        f"{pair}: {'undefined' if value is None else f'{value:.2f}'}"
        for pair, value in importance.agreement.items()
    )
    table.caption = (
        f"shares of the largest, on {importance.images} images; Spearman's correlation of the "
        f"groups' ranks: {agreement}"
    )
    return table


def _analysis_table(model: ModelAnalysis, rows: int | None) -> Table:
    """Return one row per group; bare percentages, so that all columns fit beside the names."""
    shares = sorted({cut["cut"] for group in model.groups for cut in group.sensitivity})
    columns = (">width", ">min", ">FLOPs", ">params", ">saliency")
    table = _table("channel group", *columns, *(f">-{share:.0%}" for share in shares))
    for group in model.groups[:rows]:
        accuracy = {cut["cut"]: f"{100 * cut['accuracy']:.1f}" for cut in group.sensitivity}
        table.add_row(
            _shorten(group.name, 22 if shares else 34),
            str(group.width),
            str(group.minimum),
            f"{100 * group.flops_share:.1f}",
            f"{100 * group.params_share:.1f}",
            _saliency(group.saliency),
            *(accuracy.get(share, "") for share in shares),
        )
    _add_rest(table, len(model.groups), rows, "groups")
    table.caption = "FLOPs and params: % that goes with the group"
    if shares:
        table.caption += "; -25%: accuracy (%) after cutting that share of it alone"
    return table


def _saliency(saliency: Any) -> str:
    middle = saliency.get("median", saliency.get("mean"))
    return "" if middle is None else f"{middle:.3g}"


def _cost_line(cost: Cost) -> str:
    return ", ".join(
        f"{format_quantity(getattr(cost, field))} {label}" for field, label in COSTS[:4]
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", padding=(0, 1))
    for column in columns:
        right = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table


def _facts(facts: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(value))
    return table


def _add_rest(table: Table, total: int, rows: int | None, noun: str) -> None:
    if rows is not None and total > rows:
        table.add_row(f"... {total - rows} more {noun}: --verbose", style="dim")


def _shorten(name: str, width: int = 34) -> str:
    """Cut a long name in the middle: its layer and its leaf are what people look for."""
    if len(name) <= width:
        return name
    head = (width - 2) // 2
    return f"{name[:head]}..{name[len(name) - (width - 2 - head) :]}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _times(factor: float | None) -> str:
    return "" if factor is None else f"{factor:.2f}x"


def _bytes(count: int) -> str:
    return f"{format_quantity(count)}B" if count >= 1000 else f"{count} B"


def _seconds(stages: Any) -> str:
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in stages.items())
