"""Reports as tables of 80 columns at most; building them prints nothing."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

from rich.table import Table

from prunecli.report import (
    MEAN_IOU,
    AnalyzeReport,
    BenchReport,
    CompareReport,
    CompressReport,
    Evaluation,
    ExportReport,
    FinetuneReport,
    InfoReport,
    PruneReport,
    SweepReport,
    best_epoch_text,
    fact_names,
    fact_text,
)
from prunecli.wording import percent

from .agreement_tables import agreement_parts, imitated_parts
from .compare_tables import bench_parts, compare_parts
from .compress_tables import compress_parts
from .cut_tables import prune_details, prune_parts, sweep_table
from .data_tables import dataset_parts, learnability_parts, mask_parts, sampling_text
from .demo_tables import demo_parts
from .export_tables import export_parts
from .info_tables import info_parts
from .model_tables import model_parts
from .reports import DemoReport, EnvReport, GuideList, GuideText, Method, MethodsReport
from .table_parts import (
    Parts,
    add_rest,
    cost_line,
    fact_rows,
    grid,
    preparation_facts,
    shares_facts,
    shorten,
    shown_facts,
    sparsity_facts,
    sparsity_parts,
)


@singledispatch
def view(report: Any, *, rows: int | None) -> Parts:
    """Return what is shown of a report; `rows` limits the long tables (None: all rows)."""
    raise NotImplementedError(type(report).__name__)


@view.register
def _(report: PruneReport, *, rows: int | None) -> Parts:
    return prune_details(report) if rows is None else prune_parts(report, rows)


@view.register
def _(report: CompressReport, *, rows: int | None) -> Parts:
    return compress_parts(report)


@view.register
def _(report: SweepReport, *, rows: int | None) -> Parts:
    facts = {"model": report.architecture, "cost": cost_line(report.cost)}
    facts |= preparation_facts(report.preparation)
    facts |= {"table": str(report.table)} if report.table else {}
    facts |= shown_facts(report.page, report.pictures)
    problems = dict.fromkeys(trial.problem for trial in report.trials if trial.problem)
    facts |= {"not cut": "; ".join(problems)} if problems else {}
    facts["written"] = "no model: a sweep only measures"
    facts |= {"next": report.next_command} if report.next_command else {}
    return [sweep_table(report), fact_rows(facts)]


@view.register
def _(report: FinetuneReport, *, rows: int | None) -> Parts:
    names = fact_names(report.epochs)
    table = grid(
        "epoch", ">train loss", ">loss", f">{report.accuracy.measure}",
        *(f">{name}" for name in names),
        ">rate", ">images/s", ">seconds",
    )  # fmt: skip
    for epoch in report.epochs:
        mark = " *" if epoch.epoch == report.best_epoch else ""
        table.add_row(
            f"{epoch.epoch}{mark}",
            f"{epoch.train_loss:.4f}",
            f"{epoch.loss:.4f}",
            percent(epoch.accuracy),
            *(fact_text(epoch, name) for name in names),
            f"{epoch.learning_rate:.2g}",
            f"{epoch.images_per_second:.0f}",
            f"{epoch.seconds:.1f}",
        )
    change = report.accuracy
    facts = {
        change.measure: f"{percent(change.before)} -> {percent(change.after)} on {change.split}",
        "held out": f"{percent(report.held_out.before)} -> {percent(report.held_out.after)}",
        "best epoch": best_epoch_text(report.best_epoch, len(report.epochs))
        + (" (marked *)" if report.best_epoch else "")
        + ", selected on held-out images"
        + (", stopped early" if report.stopped_early else ""),
        **preparation_facts(report.preparation),
        "augmentation": report.augmentation,
        "precision": report.precision,
        **shares_facts(report.epochs[-1].shares),
        **({} if report.threads is None else {"threads": str(report.threads)}),
        "log": str(report.log) if report.log else "none",
        **_teacher_facts(report),
        **({} if report.sparsity is None else sparsity_facts(report.sparsity)),
        **({} if report.sampling is None else {"trained on": sampling_text(report.sampling)}),
        **({} if report.record is None else {"record": str(report.record)}),
        "written": str(report.output),
        **shown_facts(report.page, report.pictures),
    }
    return [
        table,
        *sparsity_parts(report.sparsity, rows),
        *imitated_parts(report),
        fact_rows(facts),
    ]


def _teacher_facts(report: FinetuneReport) -> dict[str, str]:
    """Say who taught, and how well it does itself."""
    if report.teacher is None:
        return {"teacher": report.taught_by.statement} if report.taught_by is not None else {}
    who = "" if report.taught_by is None else f", {report.taught_by.statement}"
    return {"teacher": f"{percent(report.teacher)}{who}"}


@view.register
def _(report: Evaluation, *, rows: int | None) -> Parts:
    facts = {
        report.measure: percent(report.accuracy),
        **({} if report.top5 is None else {"top-5": percent(report.top5)}),
        "loss": f"{report.loss:.4f}",
        **({"precision": report.precision} if report.precision else {}),
        "images": f"{report.count} ({report.split})" if report.split else str(report.count),
        **preparation_facts(report.preparation),
    }
    worst_first = sorted(report.per_class.items(), key=lambda item: item[1])
    table = grid("class", ">IoU" if report.measure == MEAN_IOU else ">accuracy")
    for name, accuracy in worst_first[:rows]:
        table.add_row(name, percent(accuracy))
    add_rest(table, len(worst_first), rows, "classes")
    return [
        fact_rows(facts),
        *([table] if worst_first else []),
        *agreement_parts(report.outputs, rows),
    ]


@view.register
def _(report: ExportReport, *, rows: int | None) -> Parts:
    return export_parts(report, rows)


@view.register
def _(report: AnalyzeReport, *, rows: int | None) -> Parts:
    parts: Parts = []
    if report.dataset is not None:
        parts += dataset_parts(report.dataset, rows)
    if report.masks is not None:
        parts += mask_parts(report.masks, rows)
    if report.model is not None:
        parts += model_parts(report.model, rows)
    if report.learnability is not None:
        parts += learnability_parts(report.learnability, rows)
    shown = shown_facts(report.page, report.pictures)
    if shown:
        parts.append(fact_rows(shown))
    return parts


@view.register
def _(report: MethodsReport, *, rows: int | None) -> Parts:
    kinds: dict[str, list[Method]] = {}
    for method in report.methods:
        kinds.setdefault(method.kind, []).append(method)
    if len(kinds) > 1:
        return [_kinds_table(kinds)]
    return [_methods_table(kind, methods, rows) for kind, methods in kinds.items()]


def _kinds_table(kinds: Mapping[str, Sequence[Method]]) -> Table:
    """Return one row per registry: how many entries it has, and the first of them."""
    table = grid("registry", ">entries", "such as")
    for kind, methods in list(kinds.items())[:SHOWN_KINDS]:
        table.add_row(kind, str(len(methods)), shorten(", ".join(m.name for m in methods[:4]), 48))
    table.caption = "prunecli methods NAME lists one registry with summaries and sources"
    if len(kinds) > SHOWN_KINDS:
        table.caption += f"; also: {', '.join(list(kinds)[SHOWN_KINDS:])}"
    return table


def _methods_table(kind: str, methods: Sequence[Method], rows: int | None) -> Table:
    table = grid(kind, "what it is", "source")
    for method in methods[:rows]:
        table.add_row(method.name, method.summary, method.source)
    add_rest(table, len(methods), rows, "entries")
    return table


SHOWN_KINDS = 22
"""Registries that are shown in a row each: with head and caption they stay under 30 lines."""


@view.register
def _(report: GuideList, *, rows: int | None) -> Parts:
    parts: Parts = []
    for topic in dict.fromkeys(guide.topic for guide in report.guides):
        table = grid(topic, "what it is for")
        for guide in report.guides:
            if guide.topic == topic:
                table.add_row(guide.name, guide.summary)
        parts.append(table)
    return [*parts, fact_rows({"next": "prunecli guide NAME"})]


@view.register
def _(report: GuideText, *, rows: int | None) -> Parts:
    from rich.markdown import Markdown

    return [Markdown(report.text)]


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
    return [fact_rows(facts)]


@view.register
def _(report: InfoReport, *, rows: int | None) -> Parts:
    return info_parts(report, rows)


@view.register
def _(report: CompareReport, *, rows: int | None) -> Parts:
    return compare_parts(report)


@view.register
def _(report: BenchReport, *, rows: int | None) -> Parts:
    return bench_parts(report)


@view.register
def _(report: DemoReport, *, rows: int | None) -> Parts:
    return demo_parts(report)
