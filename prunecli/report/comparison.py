"""What `compare` and `bench` tell of several models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.report.measured import OutputAgreement, Preparation
    from prunecli.report.timings import TimingRow

Interval = tuple[float, float]
"""The ends of a 95 % interval."""


@dataclass(frozen=True)
class Scored:
    """Scores of a model on images, as `evaluate` has them, and how sure they are.

    `change` is the difference of its accuracy to that of the first model on the same images.
    """

    accuracy: float
    accuracy_interval: Interval
    top5: float
    loss: float
    change: float | None = None
    change_interval: Interval | None = None


@dataclass(frozen=True)
class Agreement:
    """How far a model does what the first one does, on the same images.

    `same_class` is the share of images with the same largest output, None for outputs that are no
    classes. Relative errors are `max|output - first| / max|first|` of an image: the largest of all
    images, and their median. These are of the main output; `outputs` has every one that both have.
    """

    same_class: float | None
    max_rel_error: float
    median_rel_error: float
    outputs: tuple[OutputAgreement, ...] = ()


@dataclass(frozen=True)
class ComparedModel:
    """One of several models; what could not be told is None, and `missing` says why.

    `cost` holds `flops`, `params` and `bytes`, `ratios` those and `file_bytes` as parts of the
    first model's (None for the first). `kind` is `PyTorch` or `ONNX`; `precision` is what an ONNX
    file computes in, and empty for others. `preparation` is how images were brought to it, None for
    random inputs.
    """

    name: str
    file: Path
    kind: str
    architecture: str
    input: tuple[int, ...]
    class_count: int | None
    cost: Mapping[str, float | None]
    file_bytes: int
    ratios: Mapping[str, float | None] | None = None
    scores: Scored | None = None
    agreement: Agreement | None = None
    preparation: Preparation | None = None
    missing: tuple[str, ...] = ()
    precision: str = ""


@dataclass(frozen=True)
class CompareReport:
    """The outcome of `compare`: every model beside the first.

    Agreement and scores are on `images` images of `data`, or on random ones where `data` is None.
    """

    models: tuple[ComparedModel, ...]
    data: str | None
    split: str
    images: int
    latency: tuple[TimingRow, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    page: Path | None = None


@dataclass(frozen=True)
class BenchReport:
    """The outcome of `bench`: `models` by name, and their times, each beside that of the first.

    `energy` tells whether this processor let its energy be read, `precisions` what ONNX files
    compute in.
    """

    models: Mapping[str, Path]
    timings: tuple[TimingRow, ...]
    energy: bool
    seconds: float
    warnings: tuple[str, ...] = ()
    precisions: Mapping[str, str] = field(default_factory=dict)
