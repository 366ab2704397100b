"""From a network to an ONNX file that is checked, compared with its source, timed and scored."""

from prunecli.exporting.onnx.evaluate import evaluate_onnx
from prunecli.exporting.onnx.file import OnnxFile, to_onnx, to_proven_onnx
from prunecli.exporting.onnx.metadata import OnnxMetadata, read_metadata
from prunecli.exporting.onnx.parity import check_parity
from prunecli.exporting.onnx.runtime import physical_cores
from prunecli.exporting.timing.benchmark import benchmark, check_devices

__all__ = [
    "OnnxFile",
    "OnnxMetadata",
    "benchmark",
    "check_devices",
    "check_parity",
    "evaluate_onnx",
    "physical_cores",
    "read_metadata",
    "to_onnx",
    "to_proven_onnx",
]
