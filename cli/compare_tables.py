"""What `compare` and `bench` say about several models: a column each."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from prunecli.evaluation.compared import Row, compared_rows, preparations, timing_rows
from prunecli.report import BenchReport, CompareReport
from prunecli.wording import images_text, one_line

from .table_parts import Parts, fact_rows, grid, shown_facts


def compare_parts(report: CompareReport) -> Parts:
    """Return the table of a comparison, and what could not be told."""
    names = [model.name for model in report.models]
    on = (
        f"{report.images} random inputs"
        if report.data is None
        else f"{report.images} {images_text(report.split)} of {report.data}"
    )
    facts = {"compared on": on, **preparations(report)}
    if report.latency:
        facts["timed"] = "as ONNX in ONNX Runtime, in turns, medians; ratios with 95 % intervals"
    facts |= {model.name: "; ".join(model.missing) for model in report.models if model.missing}
    facts |= shown_facts(report.page, ())
    return [_table(names, compared_rows(report)), fact_rows(facts)]


def bench_parts(report: BenchReport) -> Parts:
    """Return the table of a benchmark."""
    names = list(report.models)
    threads = sorted({row.threads for row in report.timings})
    rounds = sorted({row.runs for row in report.timings})
    facts = {
        "timed": "in turns, medians; ratios to the first model with 95 % intervals",
        "energy": "of the processor, all programs"
        if report.energy
        else "not told: this processor's counters cannot be read here",
        "threads": ", ".join(map(str, threads)),
        "rounds": " to ".join(dict.fromkeys((str(rounds[0]), str(rounds[-1])))) if rounds else "",
    }
    precisions = ("precision", tuple(report.precisions.get(name, "") for name in names))
    rows = [*([precisions] if report.precisions else []), *timing_rows(report.timings, names)]
    return [_table(names, rows), fact_rows(facts)]


def _table(names: Sequence[str], rows: Sequence[Row]) -> Table:
    table = grid("", *names)
    for column, name in zip(table.columns[1:], names, strict=True):
        column.header = Text(one_line(name))
    for label, cells in rows:
        table.add_row(Text(label), *(Text(one_line(cell)) for cell in cells))
    return table
