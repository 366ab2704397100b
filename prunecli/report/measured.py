"""What is measured of a model: accuracy, parity, milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Preparation:
    """How images are brought to a model.

    An image of another size than `size` is resized to no less than `resized` and cropped in the
    middle, both (height, width); other colours are converted to `channels`, 1 being grey and 3 RGB.
    Pixels of 0 to 1 are normalised by `mean` and `std`.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def statement(self) -> str:
        """Return all of it as one line."""
        height, width = self.size
        colours = {1: "to grey", 3: "grey to RGB"}.get(self.channels, f"{self.channels} channels")
        mean, std = (_listed(values) for values in (self.mean, self.std))
        return (
            f"resized to {_sides(self.resized)}, middle {height}x{width}, {colours}, "
            f"mean {mean}, std {std}"
        )


def _sides(size: tuple[int, int]) -> str:
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


ACCURACY, AGREEMENT, MEAN_IOU = "accuracy", "agreement", "mIoU"
"""What scores are called: the share of labels that are met, that of what another model does, and
the mean intersection over union of the classes of masks."""


@dataclass(frozen=True)
class OutputAgreement:
    """How far one output of a model follows that of another one, on the same images.

    `kind` is `class scores`, `class map`, `embedding` or `values`; it says what `agreement` is, a
    part of 1 (`prunecli.evaluation.agreement`). `same_class` is the share of images (of pixels,
    for a map) with the same largest value, `iou` the mean intersection over union of the classes
    that are largest; None where an output has no classes. Relative errors are
    `max|output - other| / max|other|` of an image. `cosine` is the mean over images.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    agreement: float
    cosine: float
    median_rel_error: float
    max_rel_error: float
    same_class: float | None = None
    iou: float | None = None


def mean_agreement(outputs: Sequence[OutputAgreement]) -> float:
    """Return the agreement of a network: the mean over its outputs."""
    return sum(one.agreement for one in outputs) / len(outputs)


@dataclass(frozen=True)
class Evaluation:
    """Scores on one split, as fractions; `loss` is the mean over images, or what it says.

    `accuracy` is what models are compared by, and `measure` what that is: `accuracy` of classes,
    `mIoU` of masks, or `agreement` with another model, whose `outputs` say it one by one. `top5` is
    None but for classes. `precision` is what an exported file computes in, and empty for others.
    """

    accuracy: float
    top5: float | None
    loss: float
    count: int
    per_class: Mapping[str, float] = field(default_factory=dict)
    split: str = ""
    warnings: tuple[str, ...] = ()
    preparation: Preparation | None = None
    precision: str = ""
    measure: str = ACCURACY
    outputs: tuple[OutputAgreement, ...] = ()


@dataclass(frozen=True)
class AccuracyChange:
    """Accuracy, or what `measure` says, before and after, on the split that `split` names."""

    before: float
    after: float
    split: str
    measure: str = ACCURACY


@dataclass(frozen=True)
class OutputParity:
    """How one output of an exported file compares with torch.

    `shape` has names for the sizes that are free. Integers and booleans have to be equal: `ties`
    counts the values that differ, and that differ in torch too where an input is changed by less
    than the tolerance.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    max_rel_error: float
    max_abs_error: float
    ties: int = 0


@dataclass(frozen=True)
class Parity:
    """Max relative difference between ONNX Runtime and torch over `inputs` random inputs.

    `outputs` has every output on its own. `notes` says what is less than one may expect of a file:
    a batch of one size, outputs that are left out.
    """

    max_rel_error: float
    inputs: int
    outputs: tuple[OutputParity, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchmarkRow:
    """The original (`dense`) and the pruned model (`slim`), timed in one interleaved run.

    Times are medians in milliseconds per batch; `clock` is what they were read from: `processor`
    (on one thread of a CPU) or `wall`. `float_ms` is that of the float file that `slim` was made of
    in another precision; `gain` is how many times as fast `slim` is.
    """

    device: str
    provider: str
    batch: int
    threads: int
    dense_ms: float | None
    slim_ms: float
    speedup: float | None
    speedup_low: float | None
    speedup_high: float | None
    flops_ratio: float | None
    dense_percentiles: Mapping[str, float]
    slim_percentiles: Mapping[str, float]
    runs: int
    clock: str = "wall"
    float_ms: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None


@dataclass(frozen=True)
class TeacherReport:
    """Who taught a training: `origin` is `named`, `history` (what it was pruned from) or `itself`.

    `itself` is the model before it was pruned; `file` is None for a module.
    """

    origin: str
    file: Path | None

    @property
    def statement(self) -> str:
        """Who it is in words, and how to go without one that nobody named."""
        name = "a module" if self.file is None else self.file.name
        why = {
            "history": f"{name} (from the history of the model; --teacher none to go without)",
            "itself": "the model itself, before it was pruned (--teacher none to go without)",
        }
        return why.get(self.origin, name)
