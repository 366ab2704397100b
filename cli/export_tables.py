"""What `export` says."""

from collections.abc import Sequence

from rich.table import Table

from prunecli.budget import format_bytes
from prunecli.evaluation.converted import conversion_facts
from prunecli.report import BenchmarkRow, ExportReport, OutputParity

from .table_parts import (
    Parts,
    add_rest,
    fact_rows,
    grid,
    shorten,
    shown_facts,
    times_text,
)


def export_parts(report: ExportReport, rows: int | None) -> Parts:
    """Return what was written, how it compares with torch or float, and how fast it is."""
    parity, converted = report.parity, report.conversion
    opset = "" if report.opset is None else f"opset {report.opset}, "
    facts = {
        report.format: f"{opset}{format_bytes(report.bytes)}",
        "parity": f"largest relative error {parity.max_rel_error:.1e} "
        f"over {parity.inputs} random inputs"
        + ("" if converted is None else ", of the float file"),
        **({} if converted is None else conversion_facts(converted)),
        "written": str(report.output),
        **shown_facts(report.page, report.pictures),
    }
    tables = [_outputs_table(parity.outputs, rows)] if len(parity.outputs) > 1 else []
    tables += [benchmark_table(report.benchmark)] if report.benchmark else []
    return [*tables, fact_rows(facts)]


def _outputs_table(outputs: Sequence[OutputParity], rows: int | None) -> Table:
    table = grid("output", "shape", "type", ">relative error", ">absolute error")
    for output in outputs[:rows]:
        shape = " x ".join(shorten(str(size), 16) for size in output.shape)
        errors = (f"{error:.1e}" for error in (output.max_rel_error, output.max_abs_error))
        table.add_row(output.name, shape, output.dtype, *errors)
    add_rest(table, len(outputs), rows, "outputs")
    return table


def benchmark_table(benchmark: Sequence[BenchmarkRow]) -> Table:
    """Return times of a file beside those of the dense model, or of the file in float."""
    converted = benchmark[0].float_ms is not None
    others = (">float", ">gain") if converted else (">FLOPs",)
    table = grid("device", ">batch", ">dense", ">slim", ">speed-up", ">95 %", *others)
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
            times_text(row.speedup),
            interval,
            *(
                [times_text(row.flops_ratio)]
                if row.float_ms is None
                else [f"{row.float_ms:.2f}", times_text(row.gain)]
            ),
        )
    threads = sorted({row.threads for row in benchmark})
    clocks = " and ".join(dict.fromkeys(f"{row.clock} time" for row in benchmark))
    table.caption = (
        f"milliseconds: medians of interleaved runs, {clocks}, threads: "
        f"{', '.join(map(str, threads))}"
    )
    return table


def _device(row: BenchmarkRow) -> str:
    provider = row.provider.removesuffix("ExecutionProvider")
    return row.device if provider.lower() == row.device else f"{row.device}, {provider}"
