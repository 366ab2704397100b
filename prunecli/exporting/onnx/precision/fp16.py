"""An ONNX file in half precision, for GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from prunecli.errors import ProofError
from prunecli.evaluation.relative import relative_errors
from prunecli.exporting.onnx.precision.judge import Judge
from prunecli.exporting.onnx.precision.writing import write_converted
from prunecli.exporting.onnx.runtime import fixed_batch, open_session, random_feeds, run
from prunecli.report import Conversion

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from prunecli.exporting.precision import Request

TOLERANCE = 2e-2
"""The largest relative error of half precision: about 20 of its last digits (2**-10)."""

INPUTS = 8
GPUS = (
    "half precision is for GPUs: processors compute it in float, with casts in between, and gain "
    "nothing but the size"
)


def convert_to_fp16(file: Path, target: Path, request: Request) -> Conversion:
    """Write a float ONNX file in half precision to `target`; inputs and outputs stay float32.

    Raises `ProofError` (`PARITY_FAILED`) where it is not the float file within `TOLERANCE`, on a
    CPU, for random inputs: a value that is too large for 16 bits shows there.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = convert_float_to_float16(onnx.load(str(file)), keep_io_types=True)
    proto.graph.ClearField("value_info")  # it still has the types of the float graph in places
    errors: list[float] = []
    size = write_converted(
        proto,
        file,
        target,
        {"precision": "fp16"},
        prove=lambda written: errors.append(_error(file, written, request)),
    )
    told = Conversion("fp16", size, file.stat().st_size, error=errors[0], notes=(GPUS,))
    if request.examples is None:
        return told
    judged = Judge(file, request.examples, request).told(target)
    return Conversion(
        "fp16",
        size,
        told.float_bytes,
        error=judged.error,
        agreement=judged.agreement,
        agreement_interval=judged.agreement_interval,
        accuracy=judged.accuracy,
        images=judged.images,
        split=request.examples.judged.split,
        notes=told.notes,
    )


def _error(reference: Path, file: Path, request: Request) -> float:
    """Return the median error of all outputs; raise `ProofError` above the tolerance."""
    sessions = [open_session(path, threads=request.threads) for path in (reference, file)]
    batch = fixed_batch(sessions[0]) or INPUTS
    feeds = random_feeds(sessions[0], request.input, batch=batch, seed=request.seed)
    expected, actual = (run(session, feeds) for session in sessions)
    errors = {name: _errors(actual[name], value) for name, value in expected.items()}
    worst = max(errors, key=lambda name: float(errors[name].max(initial=0.0)))
    largest = float(errors[worst].max(initial=0.0))
    if not largest <= TOLERANCE:
        raise ProofError(
            f"half precision differs from float: relative error {largest:.2e} of {worst}, allowed "
            f"{TOLERANCE:.0e}",
            code="PARITY_FAILED",
            where=str(file),
            hint="nothing was written; a value may be too large for 16 bits: leave --fp16 out",
        )
    return float(np.median(np.concatenate([*errors.values()])))


def _errors(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return the relative errors of one output; integers may be on an edge and are not compared."""
    if not np.issubdtype(expected.dtype, np.inexact):
        return np.zeros(1)
    if expected.ndim == 0:
        return relative_errors(actual.reshape(1, 1), expected.reshape(1, 1))
    return relative_errors(actual, expected)
