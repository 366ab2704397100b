"""Scores of an ONNX file on images, prepared as the file's own metadata says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.architectures.inputs import check_takes_images
from prunecli.errors import InputError
from prunecli.evaluation.batches import check_any
from prunecli.evaluation.images import check_outputs, summed_up
from prunecli.exporting.onnx.metadata import read_metadata, read_model
from prunecli.exporting.onnx.quantised import precision_of
from prunecli.exporting.onnx.runtime import fixed_batch, open_session, run
from prunecli.graph.outputs import ONLY
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.report import Evaluation

_TOP = 5


@dataclass(frozen=True)
class _Scores:
    """Per image: cross-entropy, whether the label was first and among the first five."""

    labels: NDArray[np.int64]
    loss: NDArray[np.float64]
    first: NDArray[np.bool_]
    top: NDArray[np.bool_]


def evaluate_onnx(
    path: Path,
    images: ImageSet,
    *,
    batch_size: int = 256,
    input: InputSpec | None = None,  # noqa: A002 - the name that the rest of the library uses
    threads: int | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Return accuracy, top-5, mean cross-entropy and per-class accuracy of ONNX Runtime's outputs.

    Pixels are normalised as the file's metadata says; `input` replaces that, and is needed for a
    file of another tool. Labels are matched to the file's classes by name where both know the same
    names in a different order. Raises `InputError` (`NO_INPUT_SPEC`, `IMAGE_SHAPE_MISMATCH`,
    `CLASS_COUNT_MISMATCH`, `NO_IMAGES`) and what `read_metadata` raises.
    """
    metadata = read_metadata(path)
    spec = input or metadata.input
    if spec is None:
        raise InputError(
            "the file does not say how images become its input",
            code="NO_INPUT_SPEC",
            where=str(path),
            hint="it was not exported by prunecli: give --input-size, --mean and --std",
        )
    check_takes_images(spec)
    session = open_session(path, threads=threads)
    scores = classifier_output(session)
    order, warnings = match_classes(metadata.classes, images.classes)
    parts: list[_Scores] = []
    done = 0
    for pixels, labels in images.iterate(fixed_batch(session) or batch_size):
        if len(labels) == 0:
            continue
        logits = predict(session, scores, normalise(pixels.numpy(), spec))
        check_outputs(logits, len(images.classes))
        parts.append(score(logits, order[labels.numpy()]))
        done += len(labels)
        progress(Step(f"evaluate {images.split}", done, len(images)))
    check_any(done, images.split)
    known = np.concatenate([part.labels for part in parts])
    first = np.concatenate([part.first for part in parts])
    names = dict(zip(order.tolist(), images.classes, strict=True))
    scored = summed_up(
        hits=np.bincount(known[first], minlength=len(names)).tolist(),
        counts=np.bincount(known, minlength=len(names)).tolist(),
        top5=float(np.concatenate([part.top for part in parts]).mean()),
        loss=float(np.concatenate([part.loss for part in parts]).mean()),
        names=[name for _, name in sorted(names.items())],
        split=images.split,
        warnings=(*images.warnings, *warnings, *_which(session, scores)),
    )
    return replace(scored, precision=precision_of(read_model(path)).statement)


def normalise(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Return `(pixels / 255 - mean) / std` as float32 `[n, C, H, W]` for uint8 of that shape.

    Raises `InputError` (`IMAGE_SHAPE_MISMATCH`) when the images are not of the network's shape.
    """
    if pixels.shape[1:] != spec.shape:
        raise InputError(
            f"the images are {pixels.shape[1:]}, the model takes {spec.shape}",
            code="IMAGE_SHAPE_MISMATCH",
            hint="load the images with the model's own input size",
        )
    mean = np.array(spec.mean, dtype=np.float32).reshape(-1, 1, 1)
    deviation = np.array(spec.std, dtype=np.float32).reshape(-1, 1, 1)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / deviation


def match_classes(
    model: tuple[str, ...] | None, data: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the network's label for each label of the data, and what to warn about.

    >>> match_classes(("cat", "dog"), ("dog", "cat"))[0]
    array([1, 0])
    """
    same = np.arange(len(data), dtype=np.int64)
    if model is None or model == data or len(model) != len(data):
        return same, ()
    if set(model) == set(data):
        place = {name: index for index, name in enumerate(model)}
        return np.array([place[name] for name in data], dtype=np.int64), ()
    unknown = sorted(set(data) - set(model))
    warning = (
        f"{len(unknown)} of {len(data)} classes of the data are unknown to the model by name "
        f"({', '.join(unknown[:3])}); labels are taken by their order"
    )
    return same, (warning,)


def score(logits: NDArray[Any], labels: NDArray[np.int64]) -> _Scores:
    """Return the scores of `logits` `[n, classes]` for int64 `labels` `[n]`."""
    values = logits.astype(np.float64)
    chosen = values[np.arange(len(labels)), labels]
    highest = values.max(axis=1)
    log_sum = highest + np.log(np.exp(values - highest[:, None]).sum(axis=1))
    best = np.argsort(-values, axis=1, kind="stable")[:, :_TOP]
    return _Scores(
        labels=labels,
        loss=log_sum - chosen,
        first=best[:, 0] == labels,
        top=(best == labels[:, None]).any(axis=1),
    )


def classifier_output(session: Any) -> str:
    """Return the name of the output with the scores of classes: `logits`, or the first one."""
    names = [output.name for output in session.get_outputs()]
    return ONLY if ONLY in names else str(names[0])


def _which(session: Any, name: str) -> tuple[str, ...]:
    """Say which output is scored, where there are several."""
    names = [output.name for output in session.get_outputs()]
    if len(names) == 1:
        return ()
    return (f"the file has {len(names)} outputs ({', '.join(names[:5])}): {name} is scored",)


def predict(session: Any, output: str, inputs: NDArray[np.float32]) -> NDArray[Any]:
    """Return one output for images; a batch of a fixed size is filled up with zeros for that."""
    name, fixed, count = session.get_inputs()[0].name, fixed_batch(session), len(inputs)
    if fixed is not None and fixed != count:
        padding = np.zeros((fixed - count, *inputs.shape[1:]), dtype=inputs.dtype)
        inputs = np.concatenate([inputs, padding])
    return run(session, {name: inputs})[output][:count]
