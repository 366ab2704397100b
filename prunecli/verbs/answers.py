"""What several models answer for the same images: scores, and agreement with the first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.architectures.examples import example_tensors
from prunecli.data import evaluation_split, load_split, open_source
from prunecli.evaluation.images import check_any
from prunecli.evaluation.intervals import paired_change, wilson
from prunecli.evaluation.relative import relative_errors
from prunecli.exporting.onnx.evaluate import match_classes, score
from prunecli.progress import Progress, Step
from prunecli.report import Agreement, Scored
from prunecli.verbs.entrants import Entrant, answers_of, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.options import CompareOptions

RANDOM_IMAGES = 64
"""Random inputs that agreement is measured on where there are no images."""

Inputs = tuple["NDArray[np.float32]", ...]
"""One batch of the same images, as each model takes them."""


@dataclass
class _Kept:
    """What is kept of one model's answers, batch by batch."""

    losses: list[NDArray[np.float64]] = field(default_factory=list)
    first: list[NDArray[np.bool_]] = field(default_factory=list)
    top: list[NDArray[np.bool_]] = field(default_factory=list)
    same: list[NDArray[np.bool_]] = field(default_factory=list)
    errors: list[NDArray[np.float64]] = field(default_factory=list)
    missing: dict[str, None] = field(default_factory=dict)
    classes: int | None = None


@dataclass(frozen=True)
class Answered:
    """What came of one model; `missing` says what could not be told, and why."""

    scores: Scored | None
    agreement: Agreement | None
    class_count: int | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What came of all models on `images` images of a split."""

    models: tuple[Answered, ...]
    images: int
    split: str = ""
    warnings: tuple[str, ...] = ()


def on_data(
    entrants: Sequence[Entrant], data: str, options: CompareOptions, progress: Progress
) -> Answers:
    """Run all models on the images of a data set at once, each prepared as it takes them."""
    source = open_source(data)
    split = evaluation_split(source) if options.split == "auto" else options.split
    asked = [one for one in entrants if one.spec is not None]
    sets: dict[InputSpec, ImageSet] = {}
    for one in asked:
        assert one.spec is not None
        if one.spec not in sets:  # models that take the same images share them
            sets[one.spec] = load_split(
                source,
                split,
                input=one.spec,
                seed=options.seed,
                limit=options.limit,
                progress=progress,
            )
    orders = {one.name: match_classes(one.classes, source.classes) for one in asked}
    kept = {one.name: _Kept() for one in entrants}
    run = {one.name: answers_of(one, threads=options.threads) for one in asked}
    done, total = 0, len(next(iter(sets.values()), ()))
    for batch in _together(sets, options.batch_size):
        reference: NDArray[Any] | None = None
        for one in asked:
            assert one.spec is not None
            pixels, labels = batch[one.spec]
            outputs = run[one.name]((prepared(one, pixels),))
            order = orders[one.name][0]
            _keep_scores(kept[one.name], outputs, order[labels.numpy()], len(source.classes))
            if one is entrants[0]:
                reference = outputs
            else:
                _keep_agreement(kept[one.name], outputs, reference)
        done += len(labels)
        progress(Step("compare", done, total))
    check_any(done, split)
    for one in entrants:
        if one.spec is None:
            reason = "the file does not say how images become its input: --mean and --std do"
            if not one.takes.is_images:
                reason = f"it takes no images, but {one.takes.described}"
            kept[one.name].missing[reason] = None
    notes = [note for order, notes in orders.values() for note in notes]
    found = [note for images in sets.values() for note in images.found()]
    answered = _all(entrants, kept, scored=True)
    return Answers(answered, done, split, tuple(dict.fromkeys((*found, *notes))))


def on_random(entrants: Sequence[Entrant], options: CompareOptions, progress: Progress) -> Answers:
    """Run all models on the same standard normal inputs, those that take such as the first does."""
    kept = {one.name: _Kept() for one in entrants}
    first = entrants[0].takes
    tensors = example_tensors(first, batch=RANDOM_IMAGES, seed=options.seed)
    inputs = [tensor.numpy() for tensor in tensors]
    reference: NDArray[Any] | None = None
    for done, one in enumerate(entrants):
        progress(Step("compare", done, len(entrants)))
        if _shapes(one.takes) != _shapes(first):
            reason = f"its input is {one.takes.described}, that of the first {first.described}"
            kept[one.name].missing[reason] = None
            continue
        outputs = answers_of(one, threads=options.threads)(inputs)
        kept[one.name].classes = outputs.shape[1] if outputs.ndim == 2 else None
        if one is entrants[0]:
            reference = outputs
        else:
            _keep_agreement(kept[one.name], outputs, reference)
    return Answers(_all(entrants, kept, scored=False), RANDOM_IMAGES)


def _shapes(spec: InputSpec) -> list[tuple[tuple[int, ...] | None, str, bool]]:
    return [(one.shape, one.dtype, one.batched) for one in spec.tensors]


def _together(
    sets: dict[InputSpec, ImageSet], batch_size: int
) -> Iterator[dict[InputSpec, tuple[Tensor, Tensor]]]:
    """Yield the same images of every set, batch by batch."""
    for batches in zip(*(images.iterate(batch_size) for images in sets.values()), strict=True):
        yield dict(zip(sets, batches, strict=True))


def _keep_scores(
    kept: _Kept, outputs: NDArray[Any], labels: NDArray[np.int64], classes: int
) -> None:
    kept.classes = outputs.shape[1] if outputs.ndim == 2 else None
    if kept.classes != classes:
        sizes = "x".join(map(str, outputs.shape[1:]))
        kept.missing[f"no accuracy: {sizes} outputs, and the data has {classes} classes"] = None
        return
    found = score(outputs, labels)
    kept.losses.append(found.loss)
    kept.first.append(found.first)
    kept.top.append(found.top)


def _keep_agreement(kept: _Kept, outputs: NDArray[Any], first: NDArray[Any] | None) -> None:
    if first is None:
        kept.missing["the first model could not be run on these images"] = None
    elif outputs.shape != first.shape:
        mine, other = ("x".join(map(str, one.shape[1:])) for one in (outputs, first))
        kept.missing[f"no agreement: {mine} outputs, the first model has {other}"] = None
    else:
        kept.errors.append(relative_errors(outputs, first))
        if outputs.ndim == 2:
            kept.same.append(outputs.argmax(axis=1) == first.argmax(axis=1))


def _all(
    entrants: Sequence[Entrant], kept: dict[str, _Kept], *, scored: bool
) -> tuple[Answered, ...]:
    base = kept[entrants[0].name]
    return tuple(
        Answered(
            _scores(own, None if own is base else base) if scored else None,
            _agreement(own),
            own.classes,
            tuple(own.missing),
        )
        for own in (kept[one.name] for one in entrants)
    )


def _scores(own: _Kept, base: _Kept | None) -> Scored | None:
    if not own.first:
        return None
    right = np.concatenate(own.first)
    count, hits = len(right), int(right.sum())
    found = Scored(
        accuracy=hits / count,
        accuracy_interval=wilson(hits, count),
        top5=float(np.concatenate(own.top).mean()),
        loss=float(np.concatenate(own.losses).mean()),
    )
    if base is None or not base.first:
        return found
    before = np.concatenate(base.first)
    lost, gained = int((before & ~right).sum()), int((right & ~before).sum())
    return Scored(
        found.accuracy,
        found.accuracy_interval,
        found.top5,
        found.loss,
        (gained - lost) / count,
        paired_change(lost, gained, count),
    )


def _agreement(own: _Kept) -> Agreement | None:
    if not own.errors:
        return None
    errors = np.concatenate(own.errors)
    same = float(np.concatenate(own.same).mean()) if own.same else None
    return Agreement(same, float(errors.max()), float(np.median(errors)))
