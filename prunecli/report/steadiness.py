"""Whether a timing can be trusted: what other programs did to it shows in its own figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prunecli.report.measured import BenchmarkRow
    from prunecli.report.timings import TimingRow

UNSTEADY = 1.25
"""Figures of one timing that are further apart than this tell of a busy machine."""


def unsteady_batches(benchmark: Sequence[BenchmarkRow]) -> tuple[int, ...]:
    """Return the batch sizes at which the timing is uncertain on some device."""
    return tuple(dict.fromkeys(row.batch for row, _ in _unsteady(benchmark)))


def unsteady_warnings(benchmark: Sequence[BenchmarkRow]) -> list[str]:
    """Say which times are uncertain, and what shows it."""
    return [
        f"the times on {row.device} at batch {row.batch} are uncertain: {why}, as where other "
        "programs interrupt the timing; measure again on an idle machine"
        for row, why in _unsteady(benchmark)
    ]


def _unsteady(benchmark: Sequence[BenchmarkRow]) -> Iterator[tuple[BenchmarkRow, str]]:
    """Yield the rows that are uncertain, each with the figures that show it.

    There the speed-up has a wide interval, or an image takes longer than in the smallest batch. The
    latter happens where a run outlasts a program's turn on the processor: the slower model is then
    interrupted nearly every time, and seems to lose by far more than it does.
    """
    for row in benchmark:
        low, high = row.speedup_low, row.speedup_high
        if low is not None and high is not None and high > UNSTEADY * low:
            yield row, f"the 95 % interval of the speed-up is {low:.2f} to {high:.2f}"
            continue
        same = (other for other in benchmark if other.device == row.device)
        smallest = min(same, key=lambda other: other.batch)
        times = ((row.slim_ms, smallest.slim_ms), (row.dense_ms, smallest.dense_ms))
        longer = max(_times_longer(*pair, row.batch / smallest.batch) for pair in times)
        if longer > UNSTEADY:
            yield row, f"an image takes {longer:.1f} times as long as at batch {smallest.batch}"


def _times_longer(whole: float | None, part: float | None, images: float) -> float:
    """Return how much longer an image takes in the larger batch; 1 where a time is missing."""
    return whole / (part * images) if whole and part else 1.0


def unsteady_timings(rows: Sequence[TimingRow]) -> list[str]:
    """Say which times of several models are uncertain, and what shows it."""
    return [
        f"the times of {one.model} on {row.where} are uncertain: the 95 % interval of their ratio "
        f"to those of {row.models[0].model} is {one.ratio_low:.2f} to {one.ratio_high:.2f}, as "
        "where other programs interrupt the timing; measure again on an idle machine"
        for row in rows
        for one in row.models
        if one.ratio_low is not None
        and one.ratio_high is not None
        and one.ratio_high > UNSTEADY * one.ratio_low
    ]
