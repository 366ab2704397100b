"""The memory that one model takes to be loaded and run, measured in a process of its own.

This file is also what that process runs: it imports nothing but NumPy and ONNX Runtime.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = 300.0
"""Seconds after which a process that measures is given up."""

RUNS = 3


def peak_memory(path: Path, *, shape: tuple[int, int, int], batch: int, threads: int) -> int | None:
    """Return the bytes that loading an ONNX file and running a batch add to a process, at most.

    None where that process fails, as where there is too little memory.
    """
    asked = json.dumps({"path": str(path), "shape": [batch, *shape], "threads": threads})
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
    options = ort.SessionOptions()
    options.intra_op_num_threads = asked["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    values = np.random.default_rng(0).standard_normal(asked["shape"]).astype(np.float32)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _kilobytes("VmRSS")
    session = ort.InferenceSession(asked["path"], options, providers=["CPUExecutionProvider"])
    own = session.get_inputs()[0]
    values = values.astype(kinds.get(own.type, np.float32), copy=False)
    for _ in range(RUNS):
        session.run(None, {own.name: values})
    return 1024 * max(_kilobytes("VmHWM") - before, 0)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    sys.stdout.write(str(_measure(json.loads(sys.argv[1]))))
