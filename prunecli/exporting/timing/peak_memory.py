"""The memory that one model takes to be loaded and run, measured in a process of its own.

This file is also what that process runs: it imports nothing but NumPy and ONNX Runtime.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunecli.architectures.inputs import InputSpec

PATIENCE = 300.0
"""Seconds after which a process that measures is given up."""

RUNS = 3


def peak_memory(
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    batch: int,
    threads: int,
) -> int | None:
    """Return the bytes that loading an ONNX file and running a batch add to a process, at most.

    None where that process fails, as where there is too little memory.
    """
    inputs = [
        ((batch,) * one.batched + (one.shape or ()), one.dtype, *one.values)
        for one in input.tensors
    ]
    asked = json.dumps({"path": str(path), "inputs": inputs, "threads": threads})
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, this file, data as JSON
            [sys.executable, "-P", __file__, asked],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        return int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _measure(asked: dict[str, Any]) -> int:
    import numpy as np
    import onnxruntime as ort

    kinds = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    generator = np.random.default_rng(0)

    def drawn(shape: list[int], kind: str, low: int, high: int) -> Any:
        if "float" in kind:
            return np.asarray(generator.standard_normal(shape)).astype(np.float32)
        return np.asarray(generator.integers(low, high + 1, shape)).astype(kind)

    options = ort.SessionOptions()
    options.intra_op_num_threads = asked["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    values = [drawn(*one) for one in asked["inputs"]]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _kilobytes("VmRSS")
    session = ort.InferenceSession(asked["path"], options, providers=["CPUExecutionProvider"])
    feeds = {
        own.name: value.astype(kinds.get(own.type, value.dtype), copy=False)
        for own, value in zip(session.get_inputs(), values, strict=True)
    }
    for _ in range(RUNS):
        session.run(None, feeds)
    return 1024 * max(_kilobytes("VmHWM") - before, 0)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    sys.stdout.write(str(_measure(json.loads(sys.argv[1]))))
