"""What several models answer for the same images: scores, and agreement with the first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.architectures.examples import example_tensors
from prunecli.data import evaluation_split, open_either
from prunecli.evaluation.batches import check_any
from prunecli.evaluation.intervals import paired_change, wilson
from prunecli.exporting.onnx.evaluate import match_classes, score
from prunecli.progress import Progress, Step
from prunecli.report import Scored
from prunecli.verbs.agreement import Following, image_sets, kinds_of_batch, reference_kinds
from prunecli.verbs.entrants import Entrant, answers_of, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.evaluation.output_kinds import OutputKind
    from prunecli.options import CompareOptions
    from prunecli.report import Agreement

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
    following: Following | None = None
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
    source = open_either(data)
    split = evaluation_split(source) if options.split == "auto" else options.split
    asked = tuple(one for one in entrants if one.spec is not None)
    sets = image_sets(
        asked, source, split, limit=options.limit, progress=progress, seed=options.seed
    )
    orders = {one.name: match_classes(one.classes, source.classes) for one in asked}
    kept = {one.name: _Kept() for one in entrants}
    run = {one.name: answers_of(one, threads=options.threads) for one in asked}

    def answers(one: Entrant, pixels: Tensor) -> dict[str, NDArray[Any]]:
        return run[one.name]((prepared(one, pixels),))

    kinds: tuple[OutputKind, ...] = ()
    if (first := entrants[0]).spec is not None and len(sets[first.spec]):
        kinds = reference_kinds(first, lambda pixels: answers(first, pixels), sets[first.spec])
    done, total = 0, len(next(iter(sets.values()), ()))
    for batch in _together(sets, options.batch_size):
        reference: dict[str, NDArray[Any]] | None = None
        for one in asked:
            assert one.spec is not None
            pixels, labels = batch[one.spec]
            outputs = answers(one, pixels)
            order = orders[one.name][0]
            _keep_scores(kept[one.name], main(outputs), order[labels.numpy()], len(source.classes))
            if one is entrants[0]:
                reference = outputs
            else:
                _keep_agreement(kept[one.name], outputs, reference, kinds)
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
    reference: dict[str, NDArray[Any]] | None = None
    kinds: tuple[OutputKind, ...] = ()
    for done, one in enumerate(entrants):
        progress(Step("compare", done, len(entrants)))
        if _shapes(one.takes) != _shapes(first):
            reason = f"its input is {one.takes.described}, that of the first {first.described}"
            kept[one.name].missing[reason] = None
            continue
        outputs = answers_of(one, threads=options.threads)(inputs)
        scores = main(outputs)
        kept[one.name].classes = scores.shape[1] if scores.ndim == 2 else None
        if one is entrants[0]:
            reference = outputs
            kinds = kinds_of_batch(one, outputs, RANDOM_IMAGES)
        else:
            _keep_agreement(kept[one.name], outputs, reference, kinds)
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


def main(outputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the output that tells classes, or else the first one."""
    return next(iter(outputs.values()))


def _keep_agreement(
    kept: _Kept,
    outputs: dict[str, NDArray[Any]],
    first: dict[str, NDArray[Any]] | None,
    kinds: tuple[OutputKind, ...],
) -> None:
    if first is None:
        kept.missing["the first model could not be run on these images"] = None
    elif main(outputs).shape != main(first).shape:
        mine, other = ("x".join(map(str, main(one).shape[1:])) for one in (outputs, first))
        kept.missing[f"no agreement: {mine} outputs, the first model has {other}"] = None
    else:
        kept.following = kept.following or Following(kinds)
        kept.following.add(outputs, first)


def _all(
    entrants: Sequence[Entrant], kept: dict[str, _Kept], *, scored: bool
) -> tuple[Answered, ...]:
    base = kept[entrants[0].name]
    return tuple(
        Answered(
            _scores(own, None if own is base else base) if scored else None,
            None if own.following is None else own.following.report(),
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
