"""Precisions beside float: what is asked of a format that can write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from prunecli.progress import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.report import Conversion


@dataclass(frozen=True)
class Examples:
    """Images that a file is calibrated on, and others by which it is judged beside float.

    `labels` gives the output of the model for each label of the data; None where they are not the
    same things, and only agreement with float can be told.
    """

    calibration: ImageSet
    judged: ImageSet
    labels: NDArray[Any] | None


@dataclass(frozen=True)
class Request:
    """How a float file is to be written in another precision.

    `max_drop` is the largest loss against float; layers are left in float until it is kept.
    `reduce_range` leaves weights 7 bits.
    """

    input: InputSpec
    examples: Examples | None = None
    max_drop: float | None = None
    reduce_range: bool = False
    threads: int | None = None
    seed: int = 0
    progress: Progress = silent


class Convert(Protocol):
    """Writes a float file in another precision."""

    def __call__(self, file: Path, target: Path, request: Request) -> Conversion:
        """Return what is written to `target`, beside `file`; nothing is written if it raises."""
