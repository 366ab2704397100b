"""How good a network is on images: accuracy, top-5, loss, per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.data import ImageSet, plan_batches
from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.evaluation.batches import check_any
from prunecli.evaluation.masks import evaluate_masks
from prunecli.evaluation.memory import memory_format_for
from prunecli.evaluation.outputs import class_logits
from prunecli.graph.tracing.running import evaluating
from prunecli.processes import ALONE, Processes
from prunecli.progress import Progress, Step, silent
from prunecli.report import Evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prunecli.architectures.reference import InputSpec


@dataclass(frozen=True)
class Tally:
    """Sums over images, float64 on the CPU: the loss [1], top-5 hits [1], hits and images [K]."""

    loss: Tensor
    top5: Tensor
    hits: Tensor
    images: Tensor

    def plus(self, other: Tally) -> Tally:
        """Return the sums of both."""
        return Tally(
            self.loss + other.loss,
            self.top5 + other.top5,
            self.hits + other.hits,
            self.images + other.images,
        )

    def over(self, processes: Processes) -> Tally:
        """Return the sums of all processes, each of which has looked at images of its own."""
        fields = (self.loss, self.top5, self.hits, self.images)
        return Tally(*(processes.total(field) for field in fields))


def evaluate(
    model: nn.Module,
    images: ImageSet,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    batch_size: int = 256,
    device: torch.device | str | None = None,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> Evaluation:
    """Score a classifier on images, in eval mode; the model is given back as it was.

    Where images have masks, it is one of segmentation (`evaluate_masks`).

    Several `processes` share the images, and all of them have to call this.
    `device` is a GPU when None and there is one, else the model's own. Raises `InputError`:
    `NO_IMAGES`, `NO_LOGITS`, `CLASS_COUNT_MISMATCH`.
    """
    home = _device_of(model)
    place = _usual_device(home) if device is None else torch.device(device)
    if images.has_masks:
        model.to(place)
        try:
            return evaluate_masks(
                model, images, input=input, device=place, processes=processes, progress=progress
            )
        finally:
            model.to(home)
    batches = processes.share(plan_batches(len(images), batch_size))
    model.to(place)
    try:
        tally = tally_batches(model, images, batches, input=input, device=place, progress=progress)
    finally:
        model.to(home)
    images.hear(processes)
    return to_evaluation(tally.over(processes), images)


def tally_batches(
    model: nn.Module,
    images: ImageSet,
    batches: Sequence[Tensor],
    *,
    input: InputSpec,  # noqa: A002
    device: torch.device,
    progress: Progress = silent,
) -> Tally:
    """Score the images at some positions, in eval mode and without gradients."""
    classes = len(images.classes)
    total = sum(len(positions) for positions in batches)
    tally = _empty_tally(classes)
    done = 0
    with evaluating(model), torch.no_grad():
        layout = memory_format_for(model, input)
        for pixels, labels in images.gather(batches):
            seen = normalise(pixels.to(device), input, memory_format=layout)
            logits, _ = class_logits(model(seen))
            check_outputs(logits, classes)
            tally = tally.plus(tally_logits(logits.cpu(), labels))
            done += len(labels)
            facts = {"accuracy": float(tally.hits.sum() / done)}
            progress(Step(f"evaluate {images.split}", done, total, facts))
    return tally


def tally_logits(logits: Tensor, labels: Tensor) -> Tally:
    """Return the sums for float32 logits [n, K] and labels [n]."""
    classes = logits.shape[1]
    ranked = logits.topk(min(5, classes), dim=1).indices == labels[:, None]
    return Tally(
        loss=nn.functional.cross_entropy(logits.double(), labels, reduction="sum").reshape(1),
        top5=ranked.sum(dtype=torch.float64).reshape(1),
        hits=labels[ranked[:, 0]].bincount(minlength=classes).double(),
        images=labels.bincount(minlength=classes).double(),
    )


def to_evaluation(tally: Tally, images: ImageSet) -> Evaluation:
    """Return the scores that sums stand for; raise `NO_IMAGES` when they are sums over nothing."""
    count = int(tally.images.sum())
    check_any(count, images.split)
    return summed_up(
        hits=tally.hits.tolist(),
        counts=tally.images.tolist(),
        top5=float(tally.top5) / count,
        loss=float(tally.loss) / count,
        names=images.classes,
        split=images.split,
        warnings=images.found(),
    )


def summed_up(
    *,
    hits: Sequence[float],
    counts: Sequence[float],
    top5: float,
    loss: float,
    names: Sequence[str],
    split: str,
    warnings: tuple[str, ...],
) -> Evaluation:
    """Return the scores of images by class: how many were right, and how many there are.

    `top5` is a share and `loss` a mean over all of them, `names` are those of the classes.
    """
    count = int(sum(counts))
    return Evaluation(
        accuracy=float(sum(hits)) / count,
        top5=top5,
        loss=loss,
        count=count,
        per_class={
            name: right / every
            for name, right, every in zip(names, hits, counts, strict=True)
            if every
        },
        split=split,
        warnings=warnings,
    )


def check_outputs(logits: Tensor | NDArray[Any], classes: int) -> None:
    """Raise `CLASS_COUNT_MISMATCH` unless there is one logit per class."""
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise InputError(
            f"the model has {'x'.join(map(str, logits.shape[1:]))} outputs but the data has "
            f"{classes} classes",
            code="CLASS_COUNT_MISMATCH",
            hint="give the data that the model was made for",
        )


def _empty_tally(classes: int) -> Tally:
    def zeros(length: int) -> Tensor:
        return torch.zeros(length, dtype=torch.float64)

    return Tally(zeros(1), zeros(1), zeros(classes), zeros(classes))


def _usual_device(home: torch.device) -> torch.device:
    return torch.device("cuda") if home.type == "cpu" and torch.cuda.is_available() else home


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
