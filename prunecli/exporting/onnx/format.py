"""ONNX as an export format."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prunecli.errors import LoadRefusedError
from prunecli.exporting.formats import EXPORT_FORMATS, ExportFormat, Timer
from prunecli.exporting.onnx.evaluate import evaluate_onnx
from prunecli.exporting.onnx.failures import unusable
from prunecli.exporting.onnx.file import to_onnx
from prunecli.exporting.onnx.metadata import read_metadata
from prunecli.exporting.onnx.parity import check_parity
from prunecli.exporting.timing.benchmark import benchmark, check_devices

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.report import Parity


def _check(
    model: nn.Module,
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    inputs: int,
    tolerance: float,
    seed: int,
) -> Parity:
    try:
        return check_parity(model, path, input=input, inputs=inputs, tolerance=tolerance, seed=seed)
    except LoadRefusedError as error:
        raise unusable(error.message) from error


def _input_of(path: Path) -> InputSpec | None:
    return read_metadata(path).input


ONNX = EXPORT_FORMATS.add(
    "onnx",
    ExportFormat(
        label="ONNX",
        endings=(".onnx",),
        write=to_onnx,
        check=_check,
        evaluate=evaluate_onnx,
        input_of=_input_of,
        timer=Timer(check_devices, benchmark),
        write_any_size=partial(to_onnx, dynamic_size=True),
    ),
    summary="A graph that ONNX Runtime and many other engines run, with a batch of any size.",
    source="onnx.ai",
)
