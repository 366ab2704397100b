"""From a network to a file that is checked, compared with its source, timed and scored.

What needs torch is imported when it is first used: to look at a file takes no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunecli.exporting.formats import (
        EXPORT_FORMATS,
        ExportFormat,
        Timer,
        Written,
        converter_of,
        find_format,
        format_of,
        write_proven,
        writer_of,
    )
    from prunecli.exporting.onnx.as_module import ExportedModel
    from prunecli.exporting.onnx.evaluate import evaluate_onnx
    from prunecli.exporting.onnx.file import to_onnx
    from prunecli.exporting.onnx.format import ONNX
    from prunecli.exporting.onnx.metadata import OnnxMetadata, read_metadata
    from prunecli.exporting.onnx.parity import check_parity
    from prunecli.exporting.onnx.precision.int8 import int8_bytes
    from prunecli.exporting.onnx.runtime import physical_cores
    from prunecli.exporting.precision import Examples, Request
    from prunecli.exporting.timing.benchmark import benchmark
    from prunecli.exporting.timing.engines import check_devices

__all__ = [
    "EXPORT_FORMATS",
    "ONNX",
    "Examples",
    "ExportFormat",
    "ExportedModel",
    "OnnxMetadata",
    "Request",
    "Timer",
    "Written",
    "benchmark",
    "check_devices",
    "check_parity",
    "converter_of",
    "evaluate_onnx",
    "find_format",
    "format_of",
    "int8_bytes",
    "physical_cores",
    "read_metadata",
    "to_onnx",
    "write_proven",
    "writer_of",
]

_PLACES = {
    **dict.fromkeys(
        ("EXPORT_FORMATS", "ExportFormat", "Timer", "Written", "find_format", "format_of"),
        "formats",
    ),
    **dict.fromkeys(("converter_of", "write_proven", "writer_of"), "formats"),
    "evaluate_onnx": "onnx.evaluate",
    "ExportedModel": "onnx.as_module",
    "to_onnx": "onnx.file",
    "ONNX": "onnx.format",
    **dict.fromkeys(("OnnxMetadata", "read_metadata"), "onnx.metadata"),
    "check_parity": "onnx.parity",
    "int8_bytes": "onnx.precision.int8",
    "physical_cores": "onnx.runtime",
    "benchmark": "timing.benchmark",
    "check_devices": "timing.engines",
    **dict.fromkeys(("Examples", "Request"), "precision"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.onnx.format")  # it registers the format
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
