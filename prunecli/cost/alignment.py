"""Which multiples widths keep by default, so that the kernels behind them are fast."""

from __future__ import annotations

from collections.abc import Callable

Alignment = int | Callable[[int], int]
"""A multiple for every group, or a rule from a group's channels to its multiple."""


def default_alignment(channels: int) -> int:
    """Return the multiple that a layer of so many channels keeps by default.

    ONNX Runtime's blocked kernels on a CPU work in steps of 16 channels (AVX-512) and fall back
    to slow ones off multiples of 4: at half the FLOPs a MobileNetV2 runs 0.76 times as fast as the
    dense one with odd widths and 1.64 times with these (`tests/benchmarks/alignment.csv`).
    Narrow layers cannot afford steps of 16.
    """
    return 16 if channels >= 32 else 8 if channels >= 16 else 4


def close_steps(channels: int) -> int:
    """Return the multiple at which widths of a group are looked at for their time.

    No kernel likes widths off multiples of 4, and wide groups need no closer look.
    """
    return 4 if channels <= 256 else 8 if channels <= 512 else 16


def fine_steps(channels: int) -> int:
    """Return the multiple at which a rule says what it wants, whatever is fast."""
    return max(1, channels // 64)
