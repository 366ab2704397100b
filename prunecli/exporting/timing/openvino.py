"""OpenVINO as a second runtime of ONNX files on the CPU, where it is installed."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.errors import DeviceError, ProofError, first_line
from prunecli.evaluation.relative import relative_errors
from prunecli.exporting.onnx.runtime import open_session, random_feeds, run
from prunecli.exporting.timing.clocks import Run

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.architectures.reference import InputSpec

TOLERANCE = 1e-3
"""The largest relative error beside ONNX Runtime of a file in float."""

ROUNDED = 0.25
"""That of a file in INT8, whose sums are rounded in another order and to other steps."""


def check_openvino() -> None:
    """Raise `DeviceError` (`DEVICE_MISSING`) where OpenVINO is not installed."""
    if find_spec("openvino") is None:
        raise DeviceError(
            "OpenVINO is not installed",
            code="DEVICE_MISSING",
            where="--runtime openvino",
            hint="install it: pip install 'prunecli[openvino]'",
        )


def compiled(path: Path, *, threads: int) -> Any:
    """Return a file as OpenVINO runs it: in float32, not in the bfloat16 that it may prefer."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    try:
        return openvino.Core().compile_model(str(path), "CPU", settings)
    except Exception as error:
        raise DeviceError(
            f"OpenVINO cannot run the file: {first_line(error)[:300]}",
            code="RUNTIME_REFUSED",
            where=str(path),
            hint="leave --runtime openvino out",
        ) from error


def openvino_run(
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    batch: int,
    threads: int,
    seed: int,
) -> Run:
    """Return what runs a file in OpenVINO, once its outputs are those of ONNX Runtime.

    Raises `DeviceError` (`RUNTIME_REFUSED`), `ProofError` (`PARITY_FAILED`).
    """
    session = open_session(path, threads=threads)
    feeds = random_feeds(session, input, batch=batch, seed=seed)
    request = compiled(path, threads=threads).create_infer_request()
    found = request.infer(feeds)
    for at, (name, expected) in enumerate(run(session, feeds).items()):
        if not np.issubdtype(expected.dtype, np.inexact) or not expected.ndim:
            continue
        error = float(relative_errors(np.asarray(found[at]), expected).max())
        if not error <= (ROUNDED if _is_rounded(path) else TOLERANCE):
            raise ProofError(
                f"OpenVINO and ONNX Runtime differ: relative error {error:.2e} of {name}",
                code="PARITY_FAILED",
                where=str(path),
                hint="leave --runtime openvino out",
            )

    def once() -> None:
        request.infer()

    # The work is done by threads of OpenVINO: on one of them, the time of the whole process tells.
    return Run(once, time.process_time if threads == 1 else time.perf_counter)


def _is_rounded(path: Path) -> bool:
    from prunecli.exporting.onnx.metadata import read_model
    from prunecli.exporting.onnx.quantised import precision_of

    return precision_of(read_model(path)).name == "INT8"
