"""The proof that an ONNX file computes what its torch source computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from prunecli.errors import ProofError
from prunecli.exporting.onnx.runtime import open_session, random_inputs, run
from prunecli.graph.tracing.running import evaluating
from prunecli.report import Parity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from prunecli.architectures.reference import InputSpec


def check_parity(
    model: nn.Module,
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    inputs: int = 8,
    tolerance: float = 1e-4,
    seed: int = 0,
    threads: int | None = None,
) -> Parity:
    """Compare ONNX Runtime on the CPU with torch on `inputs` standard normal inputs.

    The error of one input is `max|onnx - torch| / max|torch|` over its outputs; the report holds
    the largest. One input runs as a batch of one and the others as one batch, so that the dynamic
    batch is proven as well. Raises `ProofError` (`PARITY_FAILED`) above `tolerance`, or when an
    output is not finite.
    """
    session = open_session(path, threads=threads)
    values = random_inputs(session, batch=inputs, shape=input.shape, seed=seed)
    parts = [part for part in (values[:1], values[1:]) if len(part)]
    errors = [relative_errors(run(session, part), run_torch(model, part)) for part in parts]
    worst = float(np.max(np.concatenate(errors)))
    if not worst <= tolerance:  # written so that NaN fails
        raise ProofError(
            f"ONNX Runtime and torch differ: relative error {worst:.2e}, allowed {tolerance:.0e}",
            code="PARITY_FAILED",
            where=str(path),
            hint="nothing was written; try another --opset, or report the model",
        )
    return Parity(max_rel_error=worst, inputs=inputs)


def relative_errors(actual: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return per input `max|actual - expected| / max|expected|`; infinite where not comparable.

    >>> relative_errors(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]]))
    array([0.5])
    """
    if actual.shape != expected.shape:
        return np.array([np.inf])
    first = actual.reshape(len(actual), -1).astype(np.float64)
    second = expected.reshape(len(expected), -1).astype(np.float64)
    difference = np.abs(first - second).max(axis=1)
    scale = np.maximum(np.abs(second).max(axis=1), np.finfo(np.float64).tiny)
    error = np.where(difference == 0, 0.0, difference / scale)
    return np.where(np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1), error, np.inf)


def run_torch(model: nn.Module, values: NDArray[Any]) -> NDArray[Any]:
    """Return the model's output for `values`, in eval mode on the model's own device."""
    tensor = torch.from_numpy(values).to(device_of(model))
    with evaluating(model), torch.no_grad():
        output = model(tensor)
    return np.asarray(output.detach().cpu().numpy())


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first tensor; the CPU for a model without any."""
    return next((tensor.device for tensor in _tensors(model)), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of the model's first floating-point tensor; float32 without any."""
    floats = (tensor.dtype for tensor in _tensors(model) if tensor.is_floating_point())
    return next(floats, torch.float32)


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()
