"""Which widths are fast: what a width costs in the kernels of a runtime, as measured data.

Kernels work in blocks of channels. A width inside of a block takes the time of the whole block, and
one that no kernel likes takes more than a wider one. A staircase says for each kind of operator
what a width costs, in channels: `worth(20) == 32` where 20 channels take as long as 32.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CONV, POINTWISE, DEPTHWISE, GEMM, ELEMENT = "conv", "pointwise", "depthwise", "gemm", "element"
"""The kinds of operators that are told apart; `element` is what only moves and changes elements."""

KINDS = (CONV, POINTWISE, DEPTHWISE, GEMM)
"""Those whose widths are measured."""

MEASURED = 64
"""Widths up to this are measured one by one; beyond, the steps of the second half repeat."""

SCHEMA = 1


@dataclass(frozen=True)
class Staircase:
    """What widths cost in one runtime on one kind of processor.

    `worth[kind][w]` is what `w` channels cost, in channels of the width `MEASURED` (`w` from 0 to
    `MEASURED`); `nanoseconds[kind]` what one multiply-add, or one element, takes at that width.
    `name` says where it was measured.
    """

    name: str
    worth: Mapping[str, tuple[float, ...]]
    nanoseconds: Mapping[str, float]

    def channels(self, kind: str, most: int) -> NDArray[np.float64]:
        """Return what every width from 0 to `most` costs, in channels."""
        if kind not in self.worth:
            return np.arange(most + 1, dtype=np.float64)
        known = np.asarray(self.worth[kind])
        half = MEASURED // 2
        widths = np.arange(most + 1)
        beyond = np.maximum(0, -(-(widths - MEASURED) // half))
        return np.asarray(known[widths - beyond * half] + beyond * (known[-1] - known[half]))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        rounded = {kind: [round(each, 2) for each in row] for kind, row in self.worth.items()}
        speeds = {kind: float(f"{each:.3g}") for kind, each in self.nanoseconds.items()}
        return {"schema": SCHEMA, "name": self.name, "worth": rounded, "nanoseconds": speeds}


def parse_staircase(data: Any) -> Staircase:
    """Read what `to_json` wrote; else raise `ValueError`."""
    try:
        worth = {str(kind): tuple(map(float, row)) for kind, row in data["worth"].items()}
        speeds = {str(kind): float(value) for kind, value in data["nanoseconds"].items()}
        name = str(data["name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no staircase: {error}") from error
    numbers = [*speeds.values(), *(value for row in worth.values() for value in row)]
    whole = all(len(row) == MEASURED + 1 for row in worth.values())
    complete = set(worth) == set(KINDS) and set(speeds) == {*KINDS, ELEMENT}
    if not whole or not complete or not all(math.isfinite(each) and each >= 0 for each in numbers):
        raise ValueError("this staircase lacks something, or has what is no number")
    return Staircase(name, worth, speeds)


def blocked(block: int, *, name: str) -> Staircase:
    """Return the staircase of kernels with blocks of so many channels, where none was measured.

    A width costs the blocks that it begins, and three times that off multiples of 4, as it does in
    ONNX Runtime's blocked layouts (a fallback to other kernels).
    """
    widths = np.arange(MEASURED + 1)
    whole = np.ceil(widths / block) * block
    row = tuple((whole * np.where(widths % 4, 3.0, 1.0)).tolist())
    speeds = {CONV: 0.02, POINTWISE: 0.02, DEPTHWISE: 0.1, GEMM: 0.03, ELEMENT: 0.2}
    return Staircase(name, dict.fromkeys(KINDS, row), speeds)


@cache
def shipped(name: str) -> Staircase:
    """Return a staircase that comes with the package: `avx512`, or that of another block size."""
    file = resources.files("prunecli.cost") / "staircases" / f"{name}.json"
    if file.is_file():
        return parse_staircase(json.loads(file.read_text(encoding="utf-8")))
    return blocked(BLOCKS[name], name=name)


BLOCKS = {"avx512": 16, "avx2": 8, "neon": 4}
"""Channels in a block of ONNX Runtime's layouts, by the instructions of a processor."""


def instructions() -> str:
    """Return the vector instructions of this machine's processor that decide about blocks."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "neon"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux: the common denominator
        return "avx2"
    return "avx512" if "avx512f" in flags else "avx2"


def processor() -> str:
    """Return what the processor of this machine calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def own_file(threads: int = 1) -> Path:
    """Return where the staircase that was measured on this machine is kept.

    That is below `$XDG_CACHE_HOME`, or `~/.cache`, by processor, instructions, runtime and threads.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    runtime = f"onnxruntime {metadata.version('onnxruntime')}"
    what = f"{processor()}, {instructions()}, {runtime}, {threads} threads"
    digest = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
    return base / "prunecli" / "staircases" / f"{digest}.json"


def known_staircase() -> Staircase:
    """Return the staircase of one thread here: the measured one, else that of the instructions."""
    try:
        return parse_staircase(json.loads(own_file().read_text(encoding="utf-8")))
    except (OSError, ValueError, metadata.PackageNotFoundError):
        return shipped(instructions())
