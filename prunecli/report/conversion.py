"""What became of a float file that was written in another precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunecli.report.measured import AccuracyChange


@dataclass(frozen=True)
class CalibrationTrial:
    """One way to calibrate, with all layers in INT8, on the images that choose between the ways."""

    method: str
    agreement: float | None
    error: float


@dataclass(frozen=True)
class Conversion:
    """A file in another precision, beside the float file that it was made of.

    `precision` is `int8` or `fp16`. `error` is the median over images (or random inputs, where
    there are none) of `max|own - float| / max|float|`, `agreement` the share of `images` images
    with the same largest output (None for outputs that are no classes) with its 95 % interval,
    `accuracy` that of the float file and of this one, where the labels are those of the model.

    INT8 alone: `calibration` is the method that was taken of those `tried`, on
    `calibration_images` images; `layers` have weights, those `in_float` were left in float;
    `weight_bits` are 7 for processors whose kernels add in 16 bits.
    """

    precision: str
    bytes: int
    float_bytes: int
    error: float
    agreement: float | None = None
    agreement_interval: tuple[float, float] | None = None
    accuracy: AccuracyChange | None = None
    images: int = 0
    split: str = ""
    calibration: str = ""
    calibration_images: int = 0
    tried: tuple[CalibrationTrial, ...] = ()
    layers: int = 0
    in_float: tuple[str, ...] = ()
    weight_bits: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What people call the precision."""
        return self.precision.upper()

    @property
    def is_float(self) -> bool:
        """Whether all layers of an INT8 file were left in float."""
        return self.layers > 0 and len(self.in_float) == self.layers

    @property
    def drop(self) -> float | None:
        """What is lost against float: accuracy, or where none is known the same classes."""
        if self.accuracy is not None:
            return self.accuracy.before - self.accuracy.after
        return None if self.agreement is None else 1 - self.agreement
