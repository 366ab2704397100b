"""The end of the demo: what half the FLOPs came to, in one table."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from prunecli.budget import format_bytes, format_cost
from prunecli.report import BenchmarkRow
from prunecli.report.steadiness import unsteady_batches
from prunecli.wording import percent

from .reports import DemoReport, DemoResult
from .table_parts import Parts, fact_rows, grid

NEXT = "try your own model: prunecli compress model.pt --data images/ --speedup 2"


def demo_parts(report: DemoReport) -> Parts:
    """Return the table of before and after, how it was measured, and what to type next."""
    result = report.result
    facts = {
        "verified": result.verified.statement,
        **({"latency": latency_text(result.benchmark)} if result.benchmark else {}),
        "time": f"{report.seconds:.0f} s",
        "files in": f"{report.folder}/",
    }
    return [_changes(result), fact_rows(facts), Text(f"\nnext: {NEXT}", style="bold")]


def _changes(result: DemoResult) -> Table:
    table = grid(result.model, ">before", ">after", ">change")
    for label, kind in (("FLOPs", "flops"), ("parameters", "params")):
        before, after = getattr(result.before, kind), getattr(result.after, kind)
        table.add_row(
            label, format_cost(kind, before), format_cost(kind, after), _kept(before, after)
        )
    before, after = result.file_bytes
    table.add_row("file size", format_bytes(before), format_bytes(after), _kept(before, after))
    unsteady = unsteady_batches(result.benchmark) if result.benchmark else ()
    for row in result.benchmark:
        dense = "" if row.dense_ms is None else f"{row.dense_ms:.2f}"
        label = f"latency, ms per batch of {row.batch}"
        table.add_row(
            label, dense, f"{row.slim_ms:.2f}", gain_text(row, unsteady=row.batch in unsteady)
        )
    accuracy = result.accuracy
    table.add_row(
        f"accuracy on {result.images} {accuracy.split} images",
        percent(accuracy.before),
        percent(accuracy.after),
        f"{100 * (accuracy.after - accuracy.before):+.1f} points",
    )
    return table


def _kept(before: float, after: float) -> str:
    return f"{percent(after / before)} kept"


def gain_text(row: BenchmarkRow, *, unsteady: bool) -> str:
    """Say how much faster a model has become, and only what the timing allows to say."""
    if row.speedup is None or row.speedup_low is None or row.speedup_high is None:
        return ""
    if unsteady:
        return "uncertain"
    if row.speedup_low <= 1 <= row.speedup_high:
        return "no clear difference"
    return f"{row.speedup:.2f}x faster" if row.speedup > 1 else f"{1 / row.speedup:.2f}x slower"


def latency_text(benchmark: Sequence[BenchmarkRow]) -> str:
    """Say how the latency was measured, how sure the speed-up is, and where it is not."""
    threads = max(row.threads for row in benchmark)
    text = f"median, ONNX Runtime on this CPU, {threads} thread{'s' if threads > 1 else ''}"
    unsteady = unsteady_batches(benchmark)
    intervals = [
        f"{row.speedup_low:.2f}x to {row.speedup_high:.2f}x at batch {row.batch}"
        for row in benchmark
        if row.speedup is not None and row.batch not in unsteady
    ]
    if intervals:
        text += f"; 95 % interval of the speed-up: {', '.join(intervals)}"
    if unsteady:
        text += (
            f"; uncertain at batch {', '.join(map(str, unsteady))}: other programs interrupted the "
            "timing, measure again on an idle machine"
        )
    return text
