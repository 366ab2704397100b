"""From a network to a file that is checked, compared with its source, timed and scored."""

from prunecli.exporting.formats import (
    EXPORT_FORMATS,
    ExportFormat,
    Timer,
    Written,
    find_format,
    format_of,
    write_proven,
)
from prunecli.exporting.onnx.evaluate import evaluate_onnx
from prunecli.exporting.onnx.file import to_onnx
from prunecli.exporting.onnx.format import ONNX
from prunecli.exporting.onnx.metadata import OnnxMetadata, read_metadata
from prunecli.exporting.onnx.parity import check_parity
from prunecli.exporting.onnx.runtime import physical_cores
from prunecli.exporting.timing.benchmark import benchmark, check_devices

__all__ = [
    "EXPORT_FORMATS",
    "ONNX",
    "ExportFormat",
    "OnnxMetadata",
    "Timer",
    "Written",
    "benchmark",
    "check_devices",
    "check_parity",
    "evaluate_onnx",
    "find_format",
    "format_of",
    "physical_cores",
    "read_metadata",
    "to_onnx",
    "write_proven",
]
