"""From a network to an ONNX file that is checked, compared with its source, timed and scored."""

from prunecli.export.evaluate import evaluate_onnx
from prunecli.export.metadata import OnnxMetadata, read_metadata
from prunecli.export.onnx_file import OnnxFile, to_onnx, to_proven_onnx
from prunecli.export.parity import check_parity
from prunecli.export.runtime import physical_cores
from prunecli.export.timing import benchmark, check_devices

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
