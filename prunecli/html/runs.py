"""The pages of `finetune` and `export`, and the way of a network through all verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_bytes, format_quantity
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.page import page
from prunecli.html.parts import (
    Bar,
    Cell,
    Drawing,
    Facts,
    Grid,
    Numbers,
    Part,
    Section,
    Station,
    Stations,
)
from prunecli.html.words import (
    budget_text,
    error_text,
    folded,
    gates_fact,
    images_text,
    percent,
    sparsity_sections,
)
from prunecli.pictures import benchmark_picture, run_picture, training_picture
from prunecli.pictures.runs import stages_of
from prunecli.pictures.timings import row_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.pictures.runs import Stage
    from prunecli.report import BenchmarkRow, ExportReport, FinetuneReport, RunStep, SamplingReport


def finetune_page(report: FinetuneReport, *, gates: str = "") -> str:
    """Return the page of a training; `gates` says whether what was demanded of it is met."""
    accuracy = report.accuracy
    figures = [
        (percent(accuracy.before), "accuracy before", f"on {images_text(accuracy.split)}"),
        (percent(accuracy.after), "accuracy after", f"on {images_text(accuracy.split)}"),
    ]
    if report.teacher is not None:
        figures.append((percent(report.teacher), "the teacher's", "on the same images"))
    facts = {
        "model": report.architecture,
        "held out": f"{percent(report.held_out.before)} before, {percent(report.held_out.after)} "
        "after, on the images that choose the best epoch",
        **gates_fact(gates),
        "best epoch": f"{report.best_epoch} of {len(report.epochs)}",
        "seconds": f"{report.seconds:,.0f}",
        "log": "none" if report.log is None else str(report.log),
        **({} if report.sampling is None else _trained_on(report.sampling)),
        **({} if report.record is None else {"record of learnability": str(report.record)}),
        "written": str(report.output),
    }
    sections = [
        Section("The training", "", (Numbers(tuple(figures)), Facts(facts))),
        *warning_sections(report.warnings),
        _epochs(report),
        *way_sections(report.history),
        *sparsity_sections(report.sparsity, report.architecture),
    ]
    title = f"{report.architecture}: fine-tuned, {percent(accuracy.after)} right"
    return page(title, sections, made_by=made_by("finetune"))


def _trained_on(sampling: SamplingReport) -> dict[str, str]:
    """Say how learnability decided what was trained on."""
    names = ", ".join(str(path) for path in sampling.records)
    facts = {
        "trained by": f"{sampling.kind}, from {names}",
        "images": f"{sampling.images:,}, {sampling.unknown:,} of them in no record",
    }
    if sampling.shares:
        facts["parts of the images"] = "; ".join(
            f"epoch {at}: {percent(share)}" for at, share in enumerate(sampling.shares, start=1)
        )
    if sampling.weights is not None:
        low, high = sampling.weights
        facts["weights in the loss"] = f"{low:.3g} to {high:.3g}"
    return facts


def _epochs(report: FinetuneReport) -> Section:
    sparse = any(epoch.sparsity is not None for epoch in report.epochs)
    rows: list[tuple[Cell, ...]] = [
        (
            f"{epoch.epoch}{' (best)' if epoch.epoch == report.best_epoch else ''}",
            f"{epoch.train_loss:.4f}",
            f"{epoch.loss:.4f}",
            Bar(epoch.accuracy, percent(epoch.accuracy)),
            f"{epoch.learning_rate:.3g}",
            *([percent(epoch.sparsity)] * sparse),
            f"{epoch.images_per_second:,.0f}",
            f"{epoch.seconds:.1f}",
        )
        for epoch in report.epochs
    ]
    header = (
        ">epoch", ">training loss", ">loss", "accuracy", ">learning rate",
        *([">zeros"] * sparse), ">images per second", ">seconds",
    )  # fmt: skip
    grid = Grid(header, tuple(rows), "loss and accuracy: on images held out from training")
    text = "After every epoch the network is scored on held-out images; the best one is written."
    return Section("Epochs", text, (Drawing(training_picture(report)), folded("All epochs", grid)))


def _opset(report: ExportReport) -> str:
    return "" if report.opset is None else f"opset {report.opset}"


def export_page(report: ExportReport, *, gates: str = "") -> str:
    """Return the page of an export, and of the whole run that led to it.

    `gates` says whether what was demanded of it is met.
    """
    timed = [row for row in report.benchmark if row.speedup is not None]
    figures = [
        (f"{row.speedup:.2f}x", "as fast as the dense network", row_name(row)) for row in timed
    ]
    figures += [
        (f"{report.parity.max_rel_error:.1e}", "error against torch", "largest relative one"),
        (format_bytes(report.bytes), f"{report.format} file", _opset(report)),
    ]
    facts = {
        "model": report.architecture,
        "parity": f"largest relative error {report.parity.max_rel_error:.1e} over "
        f"{report.parity.inputs} random inputs",
        **gates_fact(gates),
        "seconds": f"{report.seconds:,.1f}",
        "written": str(report.output),
    }
    sections = [
        Section("The export", "", (Numbers(tuple(figures)), Facts(facts))),
        *warning_sections(report.warnings),
        *way_sections(report.history, timed=timed, parity=report.parity.max_rel_error),
        *_benchmark(report.benchmark),
    ]
    return page(f"{report.architecture}: exported", sections, made_by=made_by("export"))


def _benchmark(rows: Sequence[BenchmarkRow]) -> list[Section]:
    if not rows:
        return []
    cells: list[tuple[Cell, ...]] = [
        (
            row.device,
            row.provider.removesuffix("ExecutionProvider"),
            str(row.batch),
            str(row.threads),
            "" if row.dense_ms is None else f"{row.dense_ms:.3f}",
            f"{row.slim_ms:.3f}",
            _percentile(row, "p99"),
            "" if row.speedup is None else f"{row.speedup:.2f}x",
            _interval(row),
            "" if row.flops_ratio is None else f"{row.flops_ratio:.2f}x",
            str(row.runs),
        )
        for row in rows
    ]
    header = (
        "device", "runs in", ">batch", ">threads", ">dense ms", ">slim ms", ">slim p99",
        ">speed-up", ">95 % interval", ">FLOPs", ">rounds",
    )  # fmt: skip
    caption = "medians of interleaved rounds; FLOPs: how many times fewer they are"
    text = (
        "Dense and slim are timed in turn in one run, so that what slows one down slows both down."
    )
    grid = Grid(header, tuple(cells), caption)
    return [Section("How fast it is", text, (Drawing(benchmark_picture(rows)), grid))]


def _percentile(row: BenchmarkRow, name: str) -> str:
    return f"{row.slim_percentiles[name]:.3f}" if name in row.slim_percentiles else ""


def _interval(row: BenchmarkRow) -> str:
    if row.speedup_low is None or row.speedup_high is None:
        return ""
    return f"{row.speedup_low:.2f} to {row.speedup_high:.2f}"


def way_sections(
    history: Sequence[RunStep],
    *,
    timed: Sequence[BenchmarkRow] = (),
    parity: float | None = None,
) -> list[Section]:
    """Return the way of a network from dense to here; `timed` and `parity` are of its export."""
    if not history:
        return []
    stages = stages_of(history)
    stations = [Station(stages[0].name, tuple(_figures(stages[0])), _dense_text(history))]
    for at, (stage, step) in enumerate(zip(stages[1:], history, strict=True), start=1):
        last = at == len(history)
        figures = _figures(stage)
        if last and step.verb == "export":
            figures += [(f"{row.speedup:.2f}x", f"as fast, {row_name(row)}") for row in timed]
        stations.append(
            Station(stage.name, tuple(figures), _step_text(step, parity if last else None))
        )
    parts: list[Part] = [Stations(tuple(stations)), Drawing(run_picture(history))]
    if any(step.command for step in history):
        commands = {f"{at}. {stages[at].name}": _typed(step) for at, step in enumerate(history, 1)}
        parts.append(Facts(commands))
    text = "From the dense network to this one, as the files on the way tell it."
    return [Section("The whole way", text, tuple(parts))]


def _typed(step: RunStep) -> str:
    """Return the command of a step, with the file that it took from a pipe or the last run."""
    if not step.command:
        return "not known"
    named = not step.input or step.input in step.command
    return step.command if named else f"{step.command} (on {step.input})"


def _figures(stage: Stage) -> list[tuple[str, str]]:
    figures = []
    if stage.kept is not None:
        figures.append((percent(stage.kept), "of the FLOPs"))
    if stage.accuracy is not None:
        figures.append((percent(stage.accuracy), f"right, on {images_text(stage.split)}"))
    return figures


def _dense_text(history: Sequence[RunStep]) -> str:
    cost = next((step.cost for step in history if step.cost is not None), None)
    if cost is None:
        return history[0].input
    flops, params = format_quantity(cost.before.flops), format_quantity(cost.before.params)
    return f"{flops} FLOPs, {params} parameters"


def _step_text(step: RunStep, parity: float | None) -> str:
    parts = [f"asked: {budget_text(step.budget)}"] if step.budget else []
    if step.sparsity is not None:
        parts.append(f"{percent(step.sparsity)} of the weights zero")
    if step.chosen:
        parts.append(f"by {step.chosen}")
    if step.verified is not None:
        parts.append(f"proven: {step.verified.method}, error {error_text(step.verified)}")
    if step.epochs is not None:
        parts.append(f"epoch {step.best_epoch} of {step.epochs} taken")
    if step.teacher is not None:
        parts.append(f"teacher {percent(step.teacher)}")
    if parity is not None:
        parts.append(f"equals torch, error {parity:.1e}")
    return "; ".join(parts)
