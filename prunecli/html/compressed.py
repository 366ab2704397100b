"""The page of `compress`: before and after, the wishes, what was tried, the steps by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_bytes, format_quantity
from prunecli.html.analysis import made_by, warning_sections
from prunecli.html.page import page
from prunecli.html.parts import Bar, Cell, Facts, Grid, Numbers, Section
from prunecli.html.words import command_fact, place_text
from prunecli.wording import percent

if TYPE_CHECKING:
    from prunecli.report import Attempt, CompressReport


def compressed_page(report: CompressReport, *, command: str = "") -> str:
    """Return the page of a search for the model that was wished for."""
    before, after = report.before, report.after
    figures = []
    if before.latency_ms and after.latency_ms:
        faster = before.latency_ms / after.latency_ms
        text = f"{before.latency_ms:.3g} to {after.latency_ms:.3g} ms"
        figures.append((f"{faster:.2f}x", "as fast as the original", text))
    if after.accuracy is not None:
        before_text = f"{percent(before.accuracy)} before"
        figures.append((percent(after.accuracy), report.measure, before_text))
    figures += [
        (percent(after.flops / before.flops), "of the FLOPs", _amounts(before.flops, after.flops)),
        (
            percent(after.params / before.params),
            "of the parameters",
            _amounts(before.params, after.params),
        ),
        (
            format_bytes(after.bytes),
            "model file",
            f"{format_bytes(before.bytes)} of tensors before",
        ),
    ]
    facts = {
        "model": report.architecture,
        "verified": f"{report.verified.statement}; the ONNX file equals PyTorch (max relative "
        f"error {report.parity.max_rel_error:.1e})",
        "chosen": report.choice + (f", on {report.chosen_on}" if report.chosen_on else ""),
        **({f"{report.measure} on": report.reported_on} if report.reported_on else {}),
        **_drop_fact(report),
        "seconds": f"{report.seconds:,.0f}",
        "written to": f"{place_text(report.output)}, {place_text(report.onnx)}",
        **command_fact(command),
    }
    wishes = Grid(
        ("wish", ">asked", ">got", ""),
        tuple(
            (
                wish.wish.replace("_", " "),
                wish.asked_text,
                wish.got_text,
                "met" if wish.ok else "not met",
            )
            for wish in report.met
        ),
        "a speed is met where the 95 % interval of its measurement reaches what was asked",
    )
    by_hand = Grid(("command",), tuple((line,) for line in report.commands), "")
    sections = [
        Section("Result", "", (Numbers(tuple(figures), leading=2), Facts(facts)), rank=1),
        Section("Wishes", "", (wishes,), rank=1),
        *warning_sections(report.warnings),
        Section("Tried", "Every model that was made on the way.", (_tried(report.tried),), rank=1),
        Section("By hand", "These commands do each step.", (by_hand,)),
    ]
    return page(f"{report.architecture}: compressed", sections, made_by=made_by("compress"))


def _amounts(before: float, after: float) -> str:
    return f"{format_quantity(before)} to {format_quantity(after)}"


def _drop_fact(report: CompressReport) -> dict[str, str]:
    if report.drop is None:
        return {}
    drop, low, high = (100 * value for value in report.drop)
    return {"drop": f"{drop:.2f} points (95 % {low:.2f} to {high:.2f})"}


def _tried(attempts: tuple[Attempt, ...]) -> Grid:
    rows: list[tuple[Cell, ...]] = []
    for one in attempts:
        accuracy: Cell = ""
        if one.accuracy is not None:
            accuracy = Bar(one.accuracy, percent(one.accuracy))
        interval = ""
        if one.drop_low is not None and one.drop_high is not None:
            interval = f"{100 * one.drop_low:.1f} to {100 * one.drop_high:.1f}"
        rows.append(
            (
                one.budget,
                percent(one.kept.get("flops")),
                percent(one.kept.get("params")),
                format_bytes(one.bytes),
                "" if one.speedup is None else f"{one.speedup:.2f}x",
                str(one.epochs),
                accuracy,
                "" if one.drop is None else f"{100 * one.drop:.1f}",
                interval,
                "within" if one.ok else "beyond",
                f"{one.seconds:,.0f}",
            )
        )
    header = (
        "budget", ">FLOPs", ">parameters", ">size", ">speed-up", ">epochs", "accuracy",
        ">drop, points", ">95 % interval", "", ">seconds",
    )  # fmt: skip
    return Grid(header, tuple(rows), "drop: against the original, on the images that choose")
