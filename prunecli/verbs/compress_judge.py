"""By what `compress` judges models: accuracy, mean IoU, or agreement with the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from prunecli.data import check_classes, open_either, open_images, plan_batches
from prunecli.data.masks import IGNORED
from prunecli.data.pixels import normalise
from prunecli.data.source import UNLABELLED
from prunecli.errors import InputError
from prunecli.evaluation.agreement import (
    Agreements,
    mean_interval,
    overlap_parts,
    overlaps,
    paired_names,
)
from prunecli.evaluation.masks import at_size, class_maps
from prunecli.evaluation.output_kinds import SAMPLE, kinds_of, output_tensors
from prunecli.evaluation.paired import drop_between, hits
from prunecli.graph.tracing.running import evaluating
from prunecli.options.finetune import OUTPUTS
from prunecli.progress import Step
from prunecli.report import ACCURACY, AGREEMENT, MEAN_IOU
from prunecli.verbs.images import class_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prunecli.data import DataSource, ImageSet
    from prunecli.progress import Progress
    from prunecli.verbs.opened import Opened

BATCH = 32
"""Images whose outputs are compared at a time: whole maps of two models are held."""

Parts: TypeAlias = Callable[[nn.Module, Tensor], Tensor]
"""(a model, positions [n]) -> its score as a mean over these images [n]."""


@dataclass(frozen=True)
class Judge:
    """How good a model is on images, and how much worse than another one."""

    measure: str
    parts: Parts
    drop: Callable[[Tensor, Tensor], tuple[float, float, float]]

    @property
    def loss(self) -> str:
        """What models are trained for: labels, or the outputs of the original."""
        return OUTPUTS if self.measure == AGREEMENT else "labels"


def open_judged(opened: Opened, data: str, loss: str) -> DataSource:
    """Return the data that a model is judged on: with labels that fit it, or for its images alone.

    Raises `InputError` (`CLASS_COUNT_MISMATCH`) for labels of other classes, unless `loss` says
    that none is looked at.
    """
    if loss == OUTPUTS:
        return open_images(data)
    source = open_either(data)
    if source.classes != UNLABELLED and not source.has_masks:
        _check_labels(opened, source)
    return source


def _check_labels(opened: Opened, source: DataSource) -> None:
    try:
        classes = class_count(opened.model, opened.checkpoint.input)
        check_classes(classes, source, names=opened.checkpoint.classes, replaceable=True)
    except InputError as error:
        raise InputError(
            error.message,
            code=error.code,
            where=error.where,
            hint=f"{error.hint}; or look at no label (--loss outputs)",
        ) from error


def judge_of(
    opened: Opened, source: DataSource, images: ImageSet, *, loss: str, progress: Progress
) -> Judge:
    """Return by what models made from an original are judged on images."""
    spec = opened.checkpoint.input
    if source.has_masks and loss != OUTPUTS:
        from prunecli.training import map_count

        map_count(opened.model, spec)
        return Judge(MEAN_IOU, _Overlaps(images, opened, progress), _mean_drop)
    if loss != OUTPUTS and source.classes != UNLABELLED:
        return Judge(ACCURACY, _hits(images, opened, progress), _hit_drop)
    return Judge(AGREEMENT, _Agreeing(images, opened, progress), _mean_drop)


def _hits(images: ImageSet, opened: Opened, progress: Progress) -> Parts:
    spec = opened.checkpoint.input
    return lambda model, at: hits(model, images, at, input=spec, progress=progress).double()


def _hit_drop(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    return drop_between(first > 0, second > 0)


def _mean_drop(first: Tensor, second: Tensor) -> tuple[float, float, float]:
    return mean_interval(first - second)


@dataclass(frozen=True)
class _Looking:
    images: ImageSet
    opened: Opened
    progress: Progress

    def batches(self, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images with their masks or labels."""
        done = 0
        for at in plan_batches(len(positions), BATCH):
            for pixels, labels in self.images.gather([positions[at]]):
                yield normalise(pixels, self.opened.checkpoint.input), labels
            done += len(at)
            self.progress(Step(f"evaluate {self.images.split}", done, len(positions)))


class _Overlaps(_Looking):
    """Mean intersection over union of masks."""

    def __call__(self, model: nn.Module, positions: Tensor) -> Tensor:
        met, union = [], []
        with evaluating(model), torch.no_grad():
            for pixels, masks in self.batches(positions):
                maps = at_size(class_maps(model(pixels))[0], masks)
                true = masks.long().where(masks != IGNORED, -1)
                found = overlaps(maps.argmax(1), true, maps.shape[1])
                met.append(found["met"])
                union.append(found["union"])
        return overlap_parts(torch.cat(met), torch.cat(union))


class _Agreeing(_Looking):
    """Agreement with the original, which agrees with itself."""

    def __call__(self, model: nn.Module, positions: Tensor) -> Tensor:
        original = self.opened.model
        if model is original:
            return torch.ones(len(positions), dtype=torch.float64)
        found: Agreements | None = None
        pairs: dict[str, str] = {}
        spread = torch.linspace(0, len(positions) - 1, min(SAMPLE, len(positions))).round().long()
        with evaluating(model, original), torch.no_grad():
            kinds = kinds_of(
                ((len(one), output_tensors(original(one)))
                 for one, _ in self.batches(positions[spread])),
                model=original,
                classes=self.classes,
            )  # fmt: skip
            for pixels, _ in self.batches(positions):
                own, its = output_tensors(model(pixels)), output_tensors(original(pixels))
                if found is None:
                    pairs = paired_names(own, its)
                    found = Agreements([one for one in kinds if one.name in pairs])
                found.add({name: own[mine] for name, mine in pairs.items()}, its)
        assert found is not None
        return found.parts()

    @property
    def classes(self) -> int | None:
        """How many classes the file of the original names."""
        names = self.opened.checkpoint.classes
        return None if names is None else len(names)
