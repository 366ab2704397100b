"""ONNX as an export format; what needs onnx or its runtime is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prunecli.errors import LoadRefusedError
from prunecli.exporting.formats import EXPORT_FORMATS, ExportFormat, Timer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.report import Parity


def _late(module: str, name: str, **settings: Any) -> Callable[..., Any]:
    """Return a function that is imported when it is called, with some of its keywords set."""

    def call(*arguments: Any, **options: Any) -> Any:
        function = getattr(import_module(f"prunecli.exporting.{module}"), name)
        return function(*arguments, **settings, **options)

    return call


def _check(
    model: nn.Module,
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    inputs: int,
    tolerance: float,
    seed: int,
) -> Parity:
    from prunecli.exporting.onnx.failures import unusable
    from prunecli.exporting.onnx.parity import check_parity

    try:
        return check_parity(model, path, input=input, inputs=inputs, tolerance=tolerance, seed=seed)
    except LoadRefusedError as error:
        raise unusable(error.message) from error


def _input_of(path: Path) -> InputSpec | None:
    from prunecli.exporting.onnx.metadata import read_metadata

    return read_metadata(path).input


ONNX = EXPORT_FORMATS.add(
    "onnx",
    ExportFormat(
        label="ONNX",
        endings=(".onnx",),
        write=_late("onnx.file", "to_onnx"),
        check=_check,
        evaluate=_late("onnx.evaluate", "evaluate_onnx"),
        input_of=_input_of,
        timer=Timer(
            _late("timing.engines", "check_devices"), _late("timing.benchmark", "benchmark")
        ),
        write_any_size=_late("onnx.file", "to_onnx", dynamic_size=True),
        precisions={
            "int8": _late("onnx.precision.int8", "convert_to_int8"),
            "fp16": _late("onnx.precision.fp16", "convert_to_fp16"),
        },
    ),
    summary="A graph that ONNX Runtime and many other engines run, with a batch of any size.",
    source="onnx.ai",
)
