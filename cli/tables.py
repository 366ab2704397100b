"""Reports as tables of 80 columns at most; building them prints nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import singledispatch
from operator import itemgetter
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from prunecli.budget import format_quantity
from prunecli.report import (
    AnalyzeReport,
    BenchmarkRow,
    Cost,
    CutCost,
    DatasetAnalysis,
    Evaluation,
    ExportReport,
    FinetuneReport,
    FrozenReport,
    GroupReport,
    ModelAnalysis,
    OracleReport,
    PruneReport,
    Reduction,
    RepairReport,
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
    facts = {
        "model": report.architecture,
        "chosen by": f"{report.signal}, {report.allocation}; align {report.align}",
        "proof": proof,
        "seconds": _seconds(report.seconds),
        "written": "nothing: --dry-run" if report.output is None else str(report.output),
    }
    return [
        _cut_table(report.cost),
        _group_table(report.groups, rows),
        *_frozen_parts(report.frozen, rows),
        *([] if report.repair is None else [_repair_table(report.repair)]),
        _facts(facts),
    ]


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
        "written": str(report.output),
    }
    return [table, _facts(facts)]


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


def _cut_table(cost: CutCost) -> Table:
    table = _table("cost", ">before", ">after", ">kept")
    for field, label in COSTS:
        before, after = getattr(cost.before, field), getattr(cost.after, field)
        kept = cost.kept.get(field)
        table.add_row(
            label,
            format_quantity(before),
            format_quantity(after),
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


SCORED = {
    "held_out": "scored on images held out from training",
    "calibration": "scored on the same images",
}


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
    oracle = [] if model.oracle is None else [_oracle_table(model.oracle)]
    return [
        _analysis_table(model, rows),
        *oracle,
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
