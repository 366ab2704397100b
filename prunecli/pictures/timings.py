"""Milliseconds per batch of the original model and of the pruned one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, GRID, INK, QUIET, beside, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from prunecli.report import BenchmarkRow, LatencyReport

TIMES = "Milliseconds per batch (line: to 90th percentile)"
BUDGET = "budget"

HIGH = "p90"
"""The percentile that the line behind a bar of milliseconds, a median, reaches to."""


def benchmark_picture(rows: Sequence[BenchmarkRow], *, narrow: bool = False) -> Picture:
    """Draw milliseconds per batch with their spread, and the speed-up beside that of the FLOPs."""
    height = 1.6 + 0.62 * len(rows)
    figure, (left, right) = new_figure(9.6, height, columns=2, narrow=narrow)
    names = [row_name(row) for row in rows]
    for at, row in enumerate(rows):
        for label, colour, place, value, spread in (
            ("original", GRID, at - 0.2, row.dense_ms, row.dense_percentiles),
            ("this model", COLOURS[0], at + 0.2, row.slim_ms, row.slim_percentiles),
        ):
            if value is not None:
                left.barh(place, value, height=0.38, color=colour, label=None if at else label)
                left.plot([value, spread.get(HIGH, value)], [place] * 2, color=INK, linewidth=1.0)
    for at, row in enumerate(rows):
        _speedup_(right, at, row, first=at == 0)
    right.axvline(1.0, color=QUIET, linewidth=0.8)
    right.set_xlim(left=0)
    for axes in (left, right):
        named = narrow or axes is left
        labels = [beside(name, narrow=narrow) if named else "" for name in names]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        handles, words = axes.get_legend_handles_labels()
        if handles:
            axes.legend(
                handles, words, loc="upper center",
                bbox_to_anchor=(0.5, -0.28 / len(rows) ** 0.5),
                ncols=1 if narrow else 2, frameon=False,
            )  # fmt: skip
    left.set_title("Milliseconds per batch" if narrow else TIMES, loc="left")
    right.set_title("Speed-up (95 % interval)", loc="left")
    return Picture(figure, "Speed", _text(rows))


def latency_picture(latency: LatencyReport, *, narrow: bool = False) -> Picture:
    """Draw the share of the original model's time: budget, predicted and measured."""
    shares: list[tuple[str, float]] = [("predicted", latency.kept)]
    if latency.asked is not None:
        shares.insert(0, (BUDGET, latency.asked))
    if latency.measured_kept is not None:
        shares.append(("measured", latency.measured_kept))
    figure, (axes,) = new_figure(5.6, 1.2 + 0.4 * len(shares), narrow=narrow)
    for at, (name, share) in enumerate(shares):
        axes.barh(at, 100 * share, height=0.6, color=GRID if name == BUDGET else COLOURS[0])
        axes.annotate(
            f"{share:.1%}", (100 * share, at), xytext=(-4, 0), textcoords="offset points",
            ha="right", va="center", color=INK if name == BUDGET else "white",
        )  # fmt: skip
    if latency.measured_interval is not None and latency.measured_kept is not None:
        low, high = latency.measured_interval
        axes.plot([100 * low, 100 * high], [len(shares) - 1 + 0.36] * 2, color=INK, linewidth=2)
    axes.set_yticks(range(len(shares)), [name for name, _ in shares])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max(100.0, axes.get_xlim()[1]))
    axes.set_xlabel("% of the original model's time")
    text = ", ".join(f"{name} {share:.1%}" for name, share in shares)
    return Picture(figure, "Latency", f"Share of the original model's time: {text}.")


def row_name(row: BenchmarkRow) -> str:
    """Say what a row was measured with."""
    provider = row.provider.removesuffix("ExecutionProvider")
    where = row.device if provider.lower() == row.device else f"{row.device}, {provider}"
    return f"{where}, batch {row.batch}"


def _speedup_(axes: Axes, at: int, row: BenchmarkRow, *, first: bool) -> None:
    if row.speedup is None:
        axes.annotate("no model to compare with", (0.05, at), va="center", color=QUIET)
        return
    axes.barh(at, row.speedup, height=0.5, color=COLOURS[0], label="measured" if first else None)
    if row.speedup_low is not None and row.speedup_high is not None:
        axes.plot([row.speedup_low, row.speedup_high], [at, at], color=INK, linewidth=2)
    if row.flops_ratio is not None:
        axes.plot(
            [row.flops_ratio], [at], marker="D", color=COLOURS[1], linestyle="none",
            label="ratio of the FLOPs" if first else None,
        )  # fmt: skip


def _text(rows: Sequence[BenchmarkRow]) -> str:
    parts = []
    for row in rows:
        dense = "" if row.dense_ms is None else f"original {row.dense_ms:.2f} ms, "
        times = "" if row.speedup is None else f", {row.speedup:.2f} times as fast"
        parts.append(f"{row_name(row)}: {dense}this model {row.slim_ms:.2f} ms{times}")
    return f"Milliseconds per batch. {'; '.join(parts)}."
