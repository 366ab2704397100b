"""A file in another precision beside the float file: the same classes, the same outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.data import plan_batches
from prunecli.errors import InputError
from prunecli.evaluation.intervals import wilson
from prunecli.evaluation.relative import relative_errors
from prunecli.exporting.onnx.evaluate import classifier_output, normalise, predict
from prunecli.exporting.onnx.runtime import fixed_batch, open_session
from prunecli.report import AccuracyChange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.exporting.precision import Examples, Request

BATCH = 32


@dataclass(frozen=True)
class Judgement:
    """What a file does of what the float file does, on `images` images (see `Conversion`)."""

    images: int
    error: float
    agreement: float | None
    agreement_interval: tuple[float, float] | None
    accuracy: AccuracyChange | None

    @property
    def drop(self) -> float | None:
        """What is lost against float: accuracy, or where none is known the same classes."""
        if self.accuracy is not None:
            return self.accuracy.before - self.accuracy.after
        return None if self.agreement is None else 1 - self.agreement


@dataclass(frozen=True)
class _Answers:
    """Outputs `[n, ...]` for images, and the outputs `[n]` that would be right."""

    outputs: NDArray[Any]
    right: NDArray[np.int64]


class Judge:
    """Runs files on the images of a request, and the float file once.

    What is chosen on one half of the images is told on the other; `few` are the first of those
    that choose.
    """

    def __init__(self, reference: Path, examples: Examples, request: Request) -> None:
        self._images, self._request = examples.judged, request
        count = len(self._images)
        if count < 2:
            raise InputError(
                f"there are too few images to compare with float on: {count}",
                code="NO_IMAGES",
                hint="give a data set with held-out or test images",
            )
        self._labels = examples.labels
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(request.seed))
        self.choosing = shuffled[: count // 2].sort().values
        self.telling = shuffled[count // 2 :].sort().values
        self._expected = {
            id(part): self._answers(reference, part) for part in (self.choosing, self.telling)
        }

    @property
    def tells_classes(self) -> bool:
        """Whether the outputs are scores of classes."""
        return self._expected[id(self.choosing)].outputs.ndim == 2

    def chosen(self, file: Path, *, most: int | None = None) -> Judgement:
        """Judge a file on the images that choose, on so many of them at most."""
        return self._judge(file, self.choosing, most)

    def told(self, file: Path) -> Judgement:
        """Judge a file on the images that chose nothing."""
        return self._judge(file, self.telling, None)

    def _judge(self, file: Path, positions: Tensor, most: int | None) -> Judgement:
        expected = self._expected[id(positions)]
        own = self._answers(file, positions[:most])
        reference = expected.outputs[: len(own.outputs)]
        error = float(np.median(relative_errors(own.outputs, reference)))
        count = len(own.outputs)
        if own.outputs.ndim != 2:
            return Judgement(count, error, None, None, None)
        mine, theirs = own.outputs.argmax(axis=1), reference.argmax(axis=1)
        same = int((mine == theirs).sum())
        accuracy = None
        if self._labels is not None:
            before, after = ((each == own.right).mean() for each in (theirs, mine))
            accuracy = AccuracyChange(float(before), float(after), self._images.split)
        return Judgement(count, error, same / count, wilson(same, count), accuracy)

    def _answers(self, file: Path, positions: Tensor) -> _Answers:
        session = open_session(file, threads=self._request.threads)
        output, size = classifier_output(session), fixed_batch(session) or BATCH
        outputs, labels = [], []
        for pixels, own in batches(self._images, positions, self._request.input, size):
            outputs.append(predict(session, output, pixels))
            labels.append(own)
        found = np.concatenate(labels)
        right = found if self._labels is None else self._labels[found]
        return _Answers(np.concatenate(outputs), right)


def batches(
    images: ImageSet,
    positions: Tensor,
    spec: InputSpec,
    size: int,
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Yield images at some positions as a model takes them, with their labels."""
    parts = [positions[part] for part in plan_batches(len(positions), size)]
    for pixels, labels in images.gather(parts):
        yield normalise(pixels.numpy(), spec), labels.numpy()
