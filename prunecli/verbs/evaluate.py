"""`evaluate` on files: score a checkpoint or an exported file on a data set."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.architectures.inputs import InputSpec, check_takes_images
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.data import (
    check_classes,
    evaluation_split,
    load_split,
    open_source,
    unlike_classes,
)
from prunecli.data.decode import preparation
from prunecli.errors import InputError
from prunecli.options import LoadOptions
from prunecli.processes import Processes, join
from prunecli.progress import Progress, silent
from prunecli.verbs.images import class_count
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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

    `against` is one to be scored next: where it cannot be read, that is known before any work.
    """
    from prunecli import exporting
    from prunecli.evaluation import images as on_images

    processes = join()
    _check_one_process((model, against), processes)
    source = open_source(data)
    chosen = evaluation_split(source) if split == "auto" else split
    load = load or LoadOptions()
    if against is not None:
        _check_readable(against, load)
    if (form := exporting.find_format(model)) is not None:
        spec = _input_of(model, form, load)
        images = load_split(source, chosen, input=spec, limit=limit, progress=progress)
        scores = form.evaluate(model, images, batch_size=batch_size, input=spec, progress=progress)
        return dataclasses.replace(scores, preparation=preparation(spec))
    loaded = read(model, load)
    network = instantiate(loaded.checkpoint)
    spec = loaded.checkpoint.input
    check_classes(class_count(network, spec), source, names=loaded.checkpoint.classes)
    images = load_split(source, chosen, input=spec, limit=limit, progress=progress)
    scores = on_images.evaluate(
        network,
        images,
        input=spec,
        batch_size=batch_size,
        processes=processes,
        progress=progress,
    )
    unlike = unlike_classes(loaded.checkpoint.classes, source)
    warnings = merged(loaded.warnings, unlike, scores.warnings)
    return dataclasses.replace(scores, warnings=warnings, preparation=preparation(spec))


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
