"""What `compress` says of its result: ten lines, and what was tried."""

from rich.table import Table

from prunecli.budget import format_bytes, format_quantity
from prunecli.report import Attempt, CompressReport
from prunecli.wording import percent

from .table_parts import Parts, fact_rows, grid


def compress_parts(report: CompressReport) -> Parts:
    """Return the result of a search, before and after, and what was tried on the way."""
    before, after = report.before, report.after
    facts = {
        "model": report.architecture,
        "FLOPs": _change(before.flops, after.flops),
        "parameters": _change(before.params, after.params),
        "size": f"{format_bytes(before.bytes)} -> {format_bytes(after.bytes)}",
    }
    if before.latency_ms and after.latency_ms:
        faster = before.latency_ms / after.latency_ms
        facts["latency"] = (
            f"{before.latency_ms:.3g} ms -> {after.latency_ms:.3g} ms ({faster:.2f}x as fast)"
        )
    if before.accuracy is not None and report.drop is not None:
        drop, low, high = (100 * value for value in report.drop)
        facts[report.measure] = (
            f"{percent(before.accuracy)} -> {percent(after.accuracy)} on {report.reported_on} "
            f"({drop:.1f} points less, 95 % {low:.1f} to {high:.1f})"
        )
    facts["wishes"] = "; ".join(
        f"{wish.wish.replace('_', '-')} {wish.asked_text}: "
        f"{'met' if wish.ok else 'not met'} ({wish.got_text})"
        for wish in report.met
    )
    facts |= {
        "verified": f"{report.verified.statement}; ONNX against PyTorch: max relative error "
        f"{report.parity.max_rel_error:.2g}",
        "chosen": report.choice + (f", on {report.chosen_on}" if report.chosen_on else ""),
        "time": f"{report.seconds:,.0f} s",
        "by hand": "\n".join(report.commands),
        "written": f"{report.output}, {report.onnx}"
        + (f", {report.page}" if report.page is not None else ""),
    }
    return [*([_tried(report.tried)] if len(report.tried) > 1 else []), fact_rows(facts)]


def _tried(attempts: tuple[Attempt, ...]) -> Table:
    table = grid(">FLOPs", ">parameters", ">size", ">speed-up", ">epochs", ">drop", "95 %", "")
    for one in attempts:
        interval = ""
        if one.drop_low is not None and one.drop_high is not None:
            interval = f"{100 * one.drop_low:.1f} to {100 * one.drop_high:.1f}"
        table.add_row(
            percent(one.kept.get("flops")),
            percent(one.kept.get("params")),
            format_bytes(one.bytes),
            "" if one.speedup is None else f"{one.speedup:.2f}x",
            str(one.epochs),
            "" if one.drop is None else f"{100 * one.drop:.1f}",
            interval,
            "within" if one.ok else "beyond",
        )
    return table


def _change(before: float, after: float) -> str:
    return f"{format_quantity(before)} -> {format_quantity(after)} ({percent(after / before)} kept)"
