"""How good a segmentation network is on images with masks: mean intersection over union."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunecli.data import plan_batches
from prunecli.data.masks import IGNORED, check_ids
from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.evaluation.agreement import class_overlaps, overlaps
from prunecli.evaluation.batches import check_any
from prunecli.evaluation.memory import memory_format_for
from prunecli.graph.tracing.running import evaluating
from prunecli.processes import ALONE, Processes
from prunecli.progress import Progress, Step, silent
from prunecli.report import MEAN_IOU, Evaluation

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet

BATCH = 16
"""Images at a time: whole maps of all classes are held."""


def class_maps(output: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return (float32 maps of class scores [n, K, h, w], those of auxiliary heads) of any output.

    Understands a tensor, a mapping or record with `logits` or `out`, and a tuple whose first entry
    is a map. Raises `InputError` (`NO_MAPS`) for anything else.
    """
    others: list[Any] = []
    if isinstance(output, Mapping):
        first = next((output[name] for name in ("logits", "out") if name in output), None)
        others = [value for name, value in output.items() if "aux" in str(name)]
    elif hasattr(output, "logits"):
        first = output.logits
    elif isinstance(output, tuple | list):
        first, *others = output or (None,)
    else:
        first = output
    if not isinstance(first, Tensor) or first.ndim != 4 or first.shape[1] < 2:
        told = f"shape {list(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise InputError(
            f"the model does not return one map of scores per class, but {told}",
            code="NO_MAPS",
            hint="images with masks are for models with outputs [images, classes, height, width]; "
            "for others: finetune --loss outputs, evaluate --against MODEL",
        )
    alike = (
        one for one in others if isinstance(one, Tensor) and one.shape[1:2] == first.shape[1:2]
    )
    return first.float(), tuple(one.float() for one in alike)


def at_size(maps: Tensor, masks: Tensor) -> Tensor:
    """Return maps at the size of masks [n, h, w], as segmentation models are read."""
    if maps.shape[2:] == masks.shape[1:]:
        return maps
    size = list(masks.shape[1:])
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def mask_losses(maps: Tensor, masks: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the pixels of every image that are not ignored [n]."""
    target = masks.long()
    each = functional.cross_entropy(
        at_size(maps, masks),
        target,
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    counted = (target != IGNORED).flatten(1).sum(1).clamp(min=1)
    return each.flatten(1).sum(1) / counted


def evaluate_masks(
    model: nn.Module,
    images: ImageSet,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    device: torch.device,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> Evaluation:
    """Score a segmentation network, in eval mode: `accuracy` is the mean IoU over classes.

    Classes that are in no mask and that the network finds nowhere do not count. Several
    `processes` share the images. Raises `InputError`: `NO_MAPS`, `CLASS_COUNT_MISMATCH`,
    `NO_IMAGES`.
    """
    batches = processes.share(plan_batches(len(images), BATCH))
    sums = torch.zeros(2, dtype=torch.float64)
    met = union = torch.zeros(0, dtype=torch.float64)
    total = sum(len(batch) for batch in batches)
    with evaluating(model), torch.no_grad():
        layout = memory_format_for(model, input)
        for pixels, masks in images.gather(batches):
            seen = normalise(pixels.to(device), input, memory_format=layout)
            maps = at_size(class_maps(model(seen))[0], masks).cpu()
            if not len(met):
                met, union = (torch.zeros(maps.shape[1], dtype=torch.float64) for _ in range(2))
            true = masks.long().where(masks != IGNORED, -1)
            found = overlaps(maps.argmax(1), true, maps.shape[1])
            met, union = met + found["met"].sum(0), union + found["union"].sum(0)
            sums += torch.tensor([float(mask_losses(maps, masks).double().sum()), len(masks)])
            progress(Step(f"evaluate {images.split}", int(sums[1]), total))
    images.hear(processes)
    classes = max(processes.gathered(len(met)))
    if not len(met):  # a process without images of its own
        met, union = (torch.zeros(classes, dtype=torch.float64) for _ in range(2))
    met, union = processes.total(met), processes.total(union)
    loss, count = processes.total(sums).tolist()
    check_any(int(count), images.split)
    each = class_overlaps(met[None], union[None]).tolist()
    names = images.classes or tuple(str(at) for at in range(classes))
    names = (*names, *(str(at) for at in range(len(names), classes)))
    return Evaluation(
        accuracy=float(torch.tensor(each).nanmean()),
        top5=None,
        loss=loss / count,
        count=int(count),
        per_class={name: one for name, one in zip(names, each, strict=True) if math.isfinite(one)},
        split=images.split,
        warnings=images.found(),
        measure=MEAN_IOU,
    )


def check_masks(maps: int, images: ImageSet) -> None:
    """Raise `InputError` (`CLASS_COUNT_MISMATCH`) for masks with classes a model has no map for."""
    check_ids(images, maps, images.classes)
