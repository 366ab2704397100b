"""Milliseconds of the dense network and of the slim one, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.pictures.saving import Picture
from prunecli.pictures.style import COLOURS, GRID, INK, QUIET, new_figure, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from prunecli.report import BenchmarkRow, LatencyReport

HIGH = "p90"
"""The percentile that the line behind a bar of milliseconds, a median, reaches to."""


def benchmark_picture(rows: Sequence[BenchmarkRow]) -> Picture:
    """Draw milliseconds per image with their spread, and the speed-up beside that of the FLOPs."""
    figure, (left, right) = new_figure(9.6, 1.6 + 0.62 * len(rows), columns=2)
    names = [row_name(row) for row in rows]
    for at, row in enumerate(rows):
        for label, colour, place, value, spread in (
            ("dense", GRID, at - 0.2, row.dense_ms, row.dense_percentiles),
            ("slim", COLOURS[0], at + 0.2, row.slim_ms, row.slim_percentiles),
        ):
            if value is not None:
                each, high = value / row.batch, spread.get(HIGH, value) / row.batch
                left.barh(place, each, height=0.38, color=colour, label=None if at else label)
                left.plot([each, high], [place] * 2, color=INK, linewidth=1.0)
    for at, row in enumerate(rows):
        _speedup_(right, at, row, first=at == 0)
    right.axvline(1.0, color=QUIET, linewidth=0.8)
    right.set_xlim(left=0)
    for axes in (left, right):
        axes.set_yticks(range(len(rows)), [short(name) if axes is left else "" for name in names])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            axes.legend(
                handles, labels, loc="upper center",
                bbox_to_anchor=(0.5, -0.28 / len(rows) ** 0.5), ncols=2, frameon=False,
            )  # fmt: skip
    left.set_title("Milliseconds per image (line: to 90th percentile)", loc="left")
    right.set_title("Speed-up (95 % interval)", loc="left")
    return Picture(figure, "How fast the slim network is", _text(rows))


def latency_picture(latency: LatencyReport) -> Picture:
    """Draw the share of the dense network's time: asked for, predicted and measured."""
    shares: list[tuple[str, float]] = [("predicted", latency.kept)]
    if latency.asked is not None:
        shares.insert(0, ("asked for", latency.asked))
    if latency.measured_kept is not None:
        shares.append(("measured", latency.measured_kept))
    figure, (axes,) = new_figure(5.6, 1.2 + 0.4 * len(shares))
    for at, (name, share) in enumerate(shares):
        axes.barh(at, 100 * share, height=0.6, color=GRID if name == "asked for" else COLOURS[0])
        axes.annotate(
            f"{share:.1%}", (100 * share, at), xytext=(-4, 0), textcoords="offset points",
            ha="right", va="center", color=INK if name == "asked for" else "white",
        )  # fmt: skip
    if latency.measured_interval is not None and latency.measured_kept is not None:
        low, high = latency.measured_interval
        axes.plot([100 * low, 100 * high], [len(shares) - 1 + 0.36] * 2, color=INK, linewidth=2)
    axes.set_yticks(range(len(shares)), [name for name, _ in shares])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, max(100.0, axes.get_xlim()[1]))
    axes.set_xlabel("% of the dense network's time")
    text = ", ".join(f"{name} {share:.1%}" for name, share in shares)
    return Picture(figure, "Latency", f"Share of the dense network's time: {text}.")


def row_name(row: BenchmarkRow) -> str:
    """Say what a row was measured with."""
    provider = row.provider.removesuffix("ExecutionProvider")
    where = row.device if provider.lower() == row.device else f"{row.device}, {provider}"
    return f"{where}, batch {row.batch}"


def _speedup_(axes: Axes, at: int, row: BenchmarkRow, *, first: bool) -> None:
    if row.speedup is None:
        axes.annotate("nothing to compare with", (0.05, at), va="center", color=QUIET)
        return
    axes.barh(at, row.speedup, height=0.5, color=COLOURS[0], label="measured" if first else None)
    if row.speedup_low is not None and row.speedup_high is not None:
        axes.plot([row.speedup_low, row.speedup_high], [at, at], color=INK, linewidth=2)
    if row.flops_ratio is not None:
        axes.plot(
            [row.flops_ratio], [at], marker="D", color=COLOURS[1], linestyle="none",
            label="FLOPs alone would give" if first else None,
        )  # fmt: skip


def _text(rows: Sequence[BenchmarkRow]) -> str:
    parts = []
    for row in rows:
        dense = "" if row.dense_ms is None else f"dense {row.dense_ms:.2f} ms, "
        times = "" if row.speedup is None else f", {row.speedup:.2f} times as fast"
        parts.append(f"{row_name(row)}: {dense}slim {row.slim_ms:.2f} ms{times}")
    return "; ".join(parts) + "."
