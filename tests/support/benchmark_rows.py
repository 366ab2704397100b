"""Rows of a benchmark with the figures that a test is about."""

from __future__ import annotations

from prunecli.report import BenchmarkRow


def benchmark_row(speedup, low, high, *, batch=8, slim_ms=3.0, device="cpu"):
    dense_ms = speedup * slim_ms
    return BenchmarkRow(
        device, "CPU", batch, 1, dense_ms, slim_ms, speedup, low, high, 2.0, {}, {}, 100
    )
