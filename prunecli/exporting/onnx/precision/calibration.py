"""The ranges of activations on images, by the calibrators of ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    create_calibrator,
)

from prunecli.exporting.onnx.precision.judge import batches
from prunecli.exporting.onnx.runtime import fixed_batch, open_session, random_feeds
from prunecli.progress import Step
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from prunecli.architectures.reference import InputSpec
    from prunecli.exporting.precision import Examples, Request

CHUNK = 16
"""Images whose activations are held in memory at once."""


@dataclass(frozen=True)
class Calibration:
    """One calibrator of ONNX Runtime."""

    method: Any
    options: Mapping[str, Any] = field(default_factory=dict)


CALIBRATIONS: Registry[Calibration] = Registry("calibration")
CALIBRATIONS.add(
    "min-max",
    Calibration(CalibrationMethod.MinMax),
    summary="The smallest and the largest value of every activation.",
    source="onnxruntime.ai",
)
CALIBRATIONS.add(
    "percentile",
    Calibration(CalibrationMethod.Percentile, {"percentile": 99.999}),
    summary="All but one of 100,000 values of every activation.",
    source="onnxruntime.ai",
)
CALIBRATIONS.add(
    "entropy",
    Calibration(CalibrationMethod.Entropy),
    summary="The range whose histogram in INT8 is nearest by the Kullback-Leibler divergence.",
    source="onnxruntime.ai",
)


class _OneBatch(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Hands one batch to a calibrator, which holds all of a reader's activations at once."""

    def __init__(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        self._left = [dict(feeds)]

    def get_next(self) -> Any:
        """Return the batch, then None."""
        return self._left.pop() if self._left else None


def activation_ranges(
    file: Path, folder: Path, calibration: Calibration, examples: Examples, request: Request
) -> Any:
    """Return the ranges of all activations of a float file, as ONNX Runtime's quantiser takes them.

    The augmented graph is put into `folder`.
    """
    session = open_session(file, threads=request.threads)
    name, size = session.get_inputs()[0].name, fixed_batch(session) or CHUNK
    images = examples.calibration
    positions, done = torch.arange(len(images)), 0
    with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
        calibrator = create_calibrator(
            file,
            None,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=calibration.method,
            extra_options=dict(calibration.options),
        )
        for pixels, labels in batches(images, positions, request.input, size):
            done += len(labels)
            if len(pixels) == size or fixed_batch(session) is None:
                calibrator.collect_data(_OneBatch({name: pixels}))
            request.progress(Step("calibrate", done, len(images)))
        return calibrator.compute_data()


def ranges_of_noise(file: Path, folder: Path, spec: InputSpec) -> Any:
    """Return ranges of all activations for one random input, which fit no images."""
    session = open_session(file)
    feeds = random_feeds(session, spec, batch=fixed_batch(session) or 1, seed=0)
    with contextlib.redirect_stdout(io.StringIO()):
        calibrator = create_calibrator(
            file, None, augmented_model_path=str(folder / "augmented.onnx")
        )
        calibrator.collect_data(_OneBatch(feeds))
        return calibrator.compute_data()
