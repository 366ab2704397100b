"""`evaluate` on files: score a checkpoint or an exported file on a data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.architectures.inputs import InputSpec, check_takes_images
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.data import (
    check_classes,
    evaluation_split,
    load_split,
    open_either,
    open_source,
    unlike_classes,
)
from prunecli.data.decode import preparation
from prunecli.data.source import UNLABELLED
from prunecli.errors import InputError
from prunecli.evaluation.masks import check_masks
from prunecli.options import LoadOptions
from prunecli.processes import Processes, join, joined
from prunecli.progress import Progress, silent
from prunecli.verbs.images import class_count
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prunecli.data import DataSource
    from prunecli.exporting import ExportFormat
    from prunecli.report import Evaluation


def evaluate(
    model: Path,
    *,
    data: str,
    split: str = "auto",
    batch_size: int = 256,
    limit: int | None = None,
    load: LoadOptions | None = None,
    against: Path | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Score a checkpoint or an exported file on the images of one split.

    With `against` every output is compared with that of another model as well (`outputs`). Where
    labels do not fit the model, or there are none, the agreement of both is all that is measured.
    """
    processes = join()
    load = load or LoadOptions()
    _check_one_process((model, against), processes)
    if against is None:
        source = open_source(data)
        chosen = evaluation_split(source) if split == "auto" else split
        return _by_labels(model, source, load, _How(chosen, batch_size, limit, progress))
    source = open_either(data)
    chosen = evaluation_split(source) if split == "auto" else split
    _check_readable(against, load)
    from prunecli.verbs.agreement import agreement_with  # it loads what exports

    agreed = agreement_with(
        model,
        against,
        source,
        split=chosen,
        batch_size=min(batch_size, AGREEMENT_BATCH),
        limit=limit,
        load=load,
        processes=processes,
        progress=progress,
    )
    if (unlabelled := _why_unlabelled(agreed, source)) is not None:
        return dataclasses.replace(agreed, warnings=merged(agreed.warnings, unlabelled))
    scores = _by_labels(model, source, load, _How(chosen, batch_size, limit, progress))
    return dataclasses.replace(scores, outputs=agreed.outputs)


AGREEMENT_BATCH = 64
"""Images whose outputs are compared at a time: whole maps of two models are held."""


@dataclass(frozen=True)
class _How:
    """On which images models are scored, and how."""

    split: str
    batch_size: int
    limit: int | None
    progress: Progress


def _by_labels(model: Path, source: DataSource, load: LoadOptions, how: _How) -> Evaluation:
    """Score a model by the labels of images."""
    from prunecli import exporting
    from prunecli.evaluation import images as on_images

    limit, progress = how.limit, how.progress
    if (form := exporting.find_format(model)) is not None:
        if source.has_masks:
            raise InputError(
                "exported files are not scored on masks",
                code="NO_MAPS",
                where=str(model),
                hint="score the checkpoint, and compare the file with it: --against MODEL",
            )
        spec = _input_of(model, form, load)
        images = load_split(source, how.split, input=spec, limit=limit, progress=progress)
        scores = form.evaluate(
            model, images, batch_size=how.batch_size, input=spec, progress=progress
        )
        return dataclasses.replace(scores, preparation=preparation(spec))
    loaded = read(model, load)
    network = instantiate(loaded.checkpoint)
    spec = loaded.checkpoint.input
    if not source.has_masks:
        check_classes(class_count(network, spec), source, names=loaded.checkpoint.classes)
    images = load_split(source, how.split, input=spec, limit=limit, progress=progress)
    if images.has_masks:
        from prunecli.training import map_count

        check_masks(map_count(network, spec), images)
    scores = on_images.evaluate(
        network,
        images,
        input=spec,
        batch_size=how.batch_size,
        processes=joined(),
        progress=progress,
    )
    unlike = () if source.has_masks else unlike_classes(loaded.checkpoint.classes, source)
    warnings = merged(loaded.warnings, unlike, scores.warnings)
    return dataclasses.replace(scores, warnings=warnings, preparation=preparation(spec))


def _why_unlabelled(agreed: Evaluation, source: DataSource) -> tuple[str, ...] | None:
    """Say why the labels of images say nothing of a model; None where they do."""
    if source.classes == UNLABELLED:
        return ()
    if source.has_masks:
        maps = [one for one in agreed.outputs if len(one.shape) == 3]
        return None if maps else ("the masks of the data are not looked at: the model has no maps",)
    shape = agreed.outputs[0].shape
    if shape == (len(source.classes),):
        return None
    told = f"has {shape[0]} outputs" if len(shape) == 1 else "is no classifier"
    sentence = (
        f"the labels of the data are not looked at: they name {len(source.classes)} classes, and "
        f"the model {told}"
    )
    return (sentence,)


def _check_one_process(models: Iterable[Path | None], processes: Processes) -> None:
    """Raise `InputError` for a model that several processes cannot share."""
    from prunecli import exporting

    for model in models:
        if processes.count == 1 or model is None or exporting.find_format(model) is None:
            continue
        raise InputError(
            f"an exported file is evaluated in one process, and {processes.count} were started",
            code="ONE_PROCESS",
            where=str(model),
            hint="run the command without torchrun",
        )


def _check_readable(path: Path, load: LoadOptions) -> None:
    from prunecli import exporting

    if (form := exporting.find_format(path)) is not None:
        form.input_of(path)
    else:
        read(path, load)


def _input_of(path: Path, form: ExportFormat, load: LoadOptions) -> InputSpec:
    spec = form.input_of(path)
    if spec is not None and not spec.is_images:
        check_takes_images(spec)
    pixels = bool(spec and spec.mean) or bool(load.mean and load.std)
    if not pixels or (spec is None and not load.input_size):
        raise InputError(
            "the file does not say how images become its input",
            code="NO_INPUT_SPEC",
            where=str(path),
            hint="add --input-size, --mean and --std",
        )
    mean = load.mean or (spec.mean if spec else ())
    height, width = load.input_size or (spec.height if spec else 0, spec.width if spec else 0)
    return InputSpec(len(mean), height, width, mean, load.std or (spec.std if spec else ()))
