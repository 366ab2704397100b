"""The pages of `finetune` and `export`, and the history of a model through all commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import budget_text, format_bytes, format_quantity
from prunecli.evaluation.converted import conversion_facts, gain_text
from prunecli.html.agreement import imitated_sections
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.drawing import drawing
from prunecli.html.page import page
from prunecli.html.parts import (
    Bar,
    Cell,
    Facts,
    Grid,
    Numbers,
    Part,
    Section,
    Station,
    Stations,
)
from prunecli.html.words import (
    folded,
    gates_fact,
    place_text,
    sparsity_sections,
)
from prunecli.pictures import benchmark_picture, run_picture, training_picture
from prunecli.pictures.runs import stages_of
from prunecli.pictures.timings import row_name
from prunecli.report import (
    NO_GATES,
    Gates,
    best_epoch_text,
    fact_names,
    fact_text,
    gates_text,
)
from prunecli.wording import counted, images_text, percent, processes_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.pictures.runs import Stage
    from prunecli.report import (
        BenchmarkRow,
        ExportReport,
        FinetuneReport,
        OutputParity,
        RunStep,
        SamplingReport,
    )


def finetune_page(report: FinetuneReport, *, gates: Gates = NO_GATES) -> str:
    """Return the page of a training, which says whether `gates` are met."""
    accuracy, measure = report.accuracy, report.accuracy.measure
    on = f"on {images_text(accuracy.split)}"
    figures = [
        (percent(accuracy.after), measure, f"after fine-tuning, {on}"),
        (percent(accuracy.before), f"{measure} before", on),
    ]
    if report.teacher is not None:
        figures.append((percent(report.teacher), "accuracy of the teacher", "on the same images"))
    record = None if report.record is None else place_text(report.record)
    facts = {
        "model": report.architecture,
        f"held-out {measure}": f"{percent(report.held_out.before)} before, "
        f"{percent(report.held_out.after)} after, on the images that choose the best epoch",
        **gates_fact(gates_text(gates, report)),
        "best epoch": best_epoch_text(report.best_epoch, len(report.epochs))
        + (", stopped early" if report.stopped_early else ""),
        "seconds": f"{report.seconds:,.0f}",
        "log": "none" if report.log is None else place_text(report.log),
        **({} if report.sampling is None else _trained_on(report.sampling)),
        **({} if record is None else {"record of learnability": record}),
        "augmentation": report.augmentation,
        "precision": report.precision,
        **({"processes": shared} if (shared := processes_text(report.epochs[-1].shares)) else {}),
        **({} if report.threads is None else {"threads": str(report.threads)}),
        **({} if report.taught_by is None else {"teacher": report.taught_by.statement}),
        "written to": place_text(report.output),
    }
    sections = [
        Section("Fine-tuning", "", (Numbers(tuple(figures), leading=1), Facts(facts)), rank=1),
        *warning_sections(report.warnings),
        _epochs(report),
        *imitated_sections(report),
        *way_sections(report.history),
        *sparsity_sections(report.sparsity, report.architecture),
    ]
    title = f"{report.architecture}: fine-tuned, {percent(accuracy.after)} {measure}"
    return page(title, sections, made_by=made_by("finetune"))


def _trained_on(sampling: SamplingReport) -> dict[str, str]:
    """Say how learnability decided what was trained on."""
    names = ", ".join(map(place_text, sampling.records))
    facts = {
        "images chosen by": f"{sampling.kind}, from {names}",
        "images": f"{sampling.images:,}, {sampling.unknown:,} of them in no record",
    }
    if sampling.shares:
        facts["share of the images used"] = "; ".join(
            f"epoch {at}: {percent(share)}" for at, share in enumerate(sampling.shares, start=1)
        )
    if sampling.weights is not None:
        low, high = sampling.weights
        facts["weights in the loss"] = f"{low:.3g} to {high:.3g}"
    return facts


def _epochs(report: FinetuneReport) -> Section:
    names = fact_names(report.epochs)
    rows: list[tuple[Cell, ...]] = [
        (
            f"{epoch.epoch}{' (best)' if epoch.epoch == report.best_epoch else ''}",
            f"{epoch.train_loss:.4f}",
            f"{epoch.loss:.4f}",
            Bar(epoch.accuracy, percent(epoch.accuracy)),
            f"{epoch.learning_rate:.3g}",
            *(fact_text(epoch, name) for name in names),
            f"{epoch.images_per_second:,.0f}",
            f"{epoch.seconds:.1f}",
        )
        for epoch in report.epochs
    ]
    header = (
        ">epoch", ">training loss", ">loss", report.accuracy.measure, ">learning rate",
        *(f">{name}" for name in names), ">images per second", ">seconds",
    )  # fmt: skip
    grid = Grid(
        header, tuple(rows), f"loss and {report.accuracy.measure}: on images held out from training"
    )
    text = "The model is scored on held-out images after every epoch. The best epoch is written."
    parts = (drawing(training_picture, report), folded("All epochs", grid))
    return Section("Epochs", text, parts, rank=1)


def _opset(report: ExportReport) -> str:
    return "" if report.opset is None else f"opset {report.opset}"


def export_page(report: ExportReport, *, gates: Gates = NO_GATES) -> str:
    """Return the page of an export, and of the whole run that led to it.

    It says whether `gates` are met.
    """
    timed = [row for row in report.benchmark if row.speedup is not None]
    error, converted = f"{report.parity.max_rel_error:.1e}", report.conversion
    what = "equals the PyTorch model" if converted is None else "its float file equals PyTorch"
    leading = [("Verified", what, f"max relative error {error}")]
    if converted is not None and converted.agreement is not None:
        on = f"on {counted(converted.images, 'image')}"
        leading.append((percent(converted.agreement), "same class as in float", on))
    last = stages_of(report.history)[-1]
    if last.accuracy is not None:
        leading.append((percent(last.accuracy), "accuracy", f"on {images_text(last.split)}"))
    figures = [
        (f"{row.speedup:.2f}x", "as fast as the original", f"on {row_name(row)}") for row in timed
    ]
    figures.append((format_bytes(report.bytes), f"{report.format} file", _opset(report)))
    facts = {
        "model": report.architecture,
        "compared with": f"PyTorch, on {counted(report.parity.inputs, 'random input')}",
        **({} if converted is None else conversion_facts(converted)),
        **gates_fact(gates_text(gates, report)),
        "seconds": f"{report.seconds:,.1f}",
        "written to": place_text(report.output),
    }
    numbers = Numbers((*leading, *figures), leading=len(leading))
    sections = [
        Section("Export", "", (numbers, Facts(facts)), rank=1),
        *warning_sections(report.warnings),
        *_outputs(report.parity.outputs),
        *way_sections(report.history, timed=timed, parity=report.parity.max_rel_error),
        *_benchmark(report.benchmark),
    ]
    return page(f"{report.architecture}: exported", sections, made_by=made_by("export"))


def _outputs(outputs: Sequence[OutputParity]) -> list[Section]:
    """Return the errors of every output, where there are several."""
    if len(outputs) < 2:
        return []
    cells: list[tuple[Cell, ...]] = [
        (
            output.name,
            " x ".join(map(str, output.shape)),
            output.dtype,
            f"{output.max_rel_error:.1e}",
            f"{output.max_abs_error:.1e}",
        )
        for output in outputs
    ]
    header = ("output", "shape", "type", ">relative error", ">absolute error")
    text = "Every output is compared with that of the PyTorch model. These are the largest errors."
    return [Section("Outputs", text, (Grid(header, tuple(cells)),), rank=2)]


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
            *([] if row.float_ms is None else [f"{row.float_ms:.3f}", gain_text(row)]),
        )
        for row in rows
    ]
    beside = (">float, ms", ">beside float") if rows[0].float_ms is not None else ()
    header = (
        "device", "runtime", ">batch size", ">threads", ">original, ms", ">this model, ms",
        ">this model, p99", ">speed-up", ">95 % interval", ">fewer FLOPs", ">rounds", *beside,
    )  # fmt: skip
    caption = (
        "ms: milliseconds per batch, the median of all rounds; p99: the 99th percentile; fewer "
        "FLOPs: those of the original divided by those of this model"
    )
    text = "Times are milliseconds per batch. The lines reach to the 90th percentile. "
    if any(row.dense_ms is not None for row in rows):
        text += (
            "The original and this model are timed in turn in one run, so that anything that slows "
            "one down slows down both."
        )
    grid = Grid(header, tuple(cells), caption)
    return [Section("Speed", text, (drawing(benchmark_picture, rows), grid), rank=1)]


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
    """Return the history of a model up to here; `timed` and `parity` are of its export."""
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
    parts: list[Part] = [Stations(tuple(stations)), drawing(run_picture, history)]
    if any(step.command for step in history):
        commands = {f"{at}. {stages[at].name}": _typed(step) for at, step in enumerate(history, 1)}
        parts.append(Facts(commands))
    text = "Every step from the original model to this one, as recorded in its files."
    return [Section("Pipeline history", text, tuple(parts), rank=1)]


def _typed(step: RunStep) -> str:
    """Return the command of a step, with the file that it read from a pipe or the last run."""
    if not step.command:
        return "not known"
    named = not step.input or step.input in step.command
    return step.command if named else f"{step.command} (on {place_text(step.input)})"


def _figures(stage: Stage) -> list[tuple[str, str]]:
    figures = []
    if stage.kept is not None:
        figures.append((percent(stage.kept), "of the FLOPs"))
    if stage.accuracy is not None:
        figures.append((percent(stage.accuracy), f"accuracy, on {images_text(stage.split)}"))
    return figures


def _dense_text(history: Sequence[RunStep]) -> str:
    cost = next((step.cost for step in history if step.cost is not None), None)
    if cost is None:
        return place_text(history[0].input)
    flops, params = format_quantity(cost.before.flops), format_quantity(cost.before.params)
    return f"{flops} FLOPs, {params} parameters"


def _step_text(step: RunStep, parity: float | None) -> str:
    parts = [f"budget: {budget_text(step.budget)}"] if step.budget else []
    if step.sparsity is not None:
        parts.append(f"{percent(step.sparsity)} of the weights zero")
    if step.chosen:
        parts.append(f"chosen by {step.chosen}")
    if step.verified is not None:
        parts.append(f"verified: {step.verified.statement}")
    if step.epochs is not None:
        parts.append(f"best epoch {best_epoch_text(step.best_epoch, step.epochs)}")
    if step.teacher is not None:
        parts.append(f"teacher {percent(step.teacher)}")
    if parity is not None:
        parts.append(f"verified: equals the PyTorch model (max relative error {parity:.1e})")
    return "; ".join(parts)
