"""`finetune` on files: read, train, score, write."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.artefacts.history import history_of
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import (
    check_output,
    dense_architecture,
    example_input,
    provenance,
    read,
    state_of,
    versions,
)
from prunecli.artefacts.sparse import keeping_zeros, save_proven, stored_sparsity
from prunecli.checkpoint import Loaded, save
from prunecli.data import (
    DataSource,
    check_classes,
    choose,
    evaluation_split,
    load_split,
    names_of,
    open_source,
)
from prunecli.errors import InputError
from prunecli.html import finetune_page
from prunecli.learnability import (
    Record,
    check_continuation,
    continued,
    read_record,
    write_record,
)
from prunecli.network.traced import read_network
from prunecli.options import FinetuneOptions, LoadOptions
from prunecli.options.declare import check_effect
from prunecli.progress import Progress, silent
from prunecli.report import AccuracyChange, FinetuneReport, RunStep
from prunecli.sparse.layers import weight_layers
from prunecli.verbs.images import class_count
from prunecli.verbs.showing import Show, check_show, gates_text, shown
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.checkpoint import Checkpoint
    from prunecli.data import ImageSet
    from prunecli.errors import GateError


def finetune(
    model: Path,
    *,
    data: str,
    output: Path | None = None,
    teacher: Path | None = None,
    options: FinetuneOptions | None = None,
    load: LoadOptions | None = None,
    record: Path | None = None,
    page: Path | None = None,
    plots: Path | None = None,
    continue_record: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    gates: Callable[[FinetuneReport], GateError | None] | None = None,
    command: str = "",
    progress: Progress = silent,
) -> FinetuneReport:
    """Train the network in `model` on `data`, with `teacher` as the teacher where one is given.

    `output` defaults to `<stem>.finetuned.pt` in the current folder; the log and the state that
    `resume` goes on from lie in `<output stem>.run/` beside it. `record` is where it is written
    which training images were right after which epoch (Parquet); with `continue_record` the
    epochs are added to a record that is there, of the same network on the same images. `page` is
    an HTML file, `plots` a folder for pictures; the page says whether `gates` are met.
    """
    from prunecli import training
    from prunecli.evaluation import images as on_images

    start = time.perf_counter()
    options = dataclasses.replace(
        options or FinetuneOptions(), record_learnability=record is not None
    )
    check_effect(options, teacher=teacher)
    target = output or Path(f"{model.stem}.finetuned.pt")
    check_output(target, inputs=[model, *([teacher] if teacher else [])], overwrite=overwrite)
    show = Show(page, plots)
    check_show(show, "finetune", inputs=[model, data, teacher], overwrite=overwrite)
    if record is not None:
        check_output(record, inputs=[model, target], overwrite=overwrite or continue_record)
    training.check_options(options)
    for file in (*options.curriculum, *options.importance_sampling):
        read_record(file)
    run_dir = target.with_suffix(".run")
    if not (resume or overwrite):
        _check_unused(run_dir)
    loaded = read(model, load)
    checkpoint, source = loaded.checkpoint, open_source(data)
    network = instantiate(checkpoint)
    taught = None if teacher is None else read(teacher, load)
    check_classes(class_count(network, checkpoint.input), source, names=checkpoint.classes)
    earlier = _earlier(record, loaded, source, options) if continue_record else None
    split = evaluation_split(source, trained=True)
    test = load_split(source, split, input=checkpoint.input, seed=options.seed, progress=progress)
    layers = (
        weight_layers(read_network(network, [example_input(checkpoint.input)]))
        if options.sparsity is not None
        else ()
    )
    before = on_images.evaluate(network, test, input=checkpoint.input, progress=progress)
    result = training.finetune(
        network,
        source,
        input=checkpoint.input,
        options=options,
        teacher=None if taught is None else instantiate(taught.checkpoint),
        teacher_input=None if taught is None else taught.checkpoint.input,
        masks=checkpoint.masks,
        layers=layers,
        run_dir=run_dir,
        resume=resume,
        progress=progress,
    )
    after = on_images.evaluate(result.model, test, input=checkpoint.input, progress=progress)
    accuracy = AccuracyChange(before.accuracy, after.accuracy, split)
    dense = None
    if taught is not None:
        images = test if taught.checkpoint.input == checkpoint.input else None
        dense = _accuracy_of(
            taught.checkpoint, source, split, images=images, seed=options.seed, progress=progress
        )
    step = RunStep(
        verb="finetune",
        command=command,
        input=model.name,
        sparsity=options.sparsity,
        accuracy=accuracy,
        teacher=dense,
        epochs=len(result.epochs),
        best_epoch=result.best_epoch,
    )
    trained = dataclasses.replace(
        checkpoint,
        tensors=state_of(result.model),
        classes=source.classes,
        metadata=provenance(
            loaded,
            model,
            command=command,
            seed=options.seed,
            facts={"accuracy": dataclasses.asdict(accuracy), "data": data},
            step=step,
        ),
    )
    trained = keeping_zeros(trained, result.model, result.masks, layers=layers, options=options)
    if training.is_main_process():
        save_proven(trained, target) if trained.masks else save(trained, target)
        if record is not None and result.record is not None:
            facts = {**_facts(loaded, options), "data": data, "command": command}
            _write_record(record, result.record, earlier=earlier, facts=facts)
    report = FinetuneReport(
        output=target,
        accuracy=accuracy,
        held_out=AccuracyChange(
            result.held_out_before.accuracy, result.held_out_after.accuracy, "held_out"
        ),
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        log=result.log,
        record=record,
        seconds=round(time.perf_counter() - start, 3),
        warnings=merged(loaded.warnings, result.warnings, test.warnings),
        sparsity=stored_sparsity(trained, before=model, after=target),
        sampling=result.sampling,
        architecture=str(dense_architecture(checkpoint)),
        teacher=dense,
        history=(*history_of(checkpoint), step),
    )
    if not training.is_main_process():
        return report
    return shown(report, show, partial(finetune_page, gates=gates_text(gates, report)))


def _check_unused(run_dir: Path) -> None:
    """Raise `InputError` (`UNFINISHED_RUN`) where a stopped run could still go on."""
    from prunecli import training

    if training.has_state(run_dir):
        raise InputError(
            "a run that was stopped lies in the folder of this one",
            code="UNFINISHED_RUN",
            where=str(run_dir),
            hint="go on with it (--resume), or start from the beginning (--overwrite)",
        )


def _accuracy_of(
    checkpoint: Checkpoint,
    source: DataSource,
    split: str,
    *,
    images: ImageSet | None,
    seed: int,
    progress: Progress,
) -> float:
    """Return the accuracy of another network on a split; `images` are those of it, if at hand."""
    from prunecli.evaluation import images as on_images

    spec = checkpoint.input
    if images is None:
        images = load_split(source, split, input=spec, seed=seed, progress=progress)
    network = instantiate(checkpoint)
    return on_images.evaluate(network, images, input=spec, progress=progress).accuracy


def _write_record(
    path: Path, record: Record, *, earlier: Record | None, facts: dict[str, Any]
) -> None:
    """Write what was learned when, behind the epochs of an `earlier` record where there is one."""
    told = {**record.facts, **facts, "versions": versions()}
    found = dataclasses.replace(record, facts=told)
    write_record(found if earlier is None else continued(earlier, found, where=path), path)


def _earlier(
    record: Path | None, loaded: Loaded, source: DataSource, options: FinetuneOptions
) -> Record | None:
    """Return the record that this run goes on with, checked before any work; None for none yet."""
    if record is None or not record.exists():
        return None
    earlier = read_record(record)
    images = choose(
        source, "train", seed=options.seed, held_out=options.held_out, limit=options.limit
    )
    check_continuation(
        earlier,
        facts=_facts(loaded, options),
        scored=options.record_learnability_mode,
        images=names_of(images),
        where=record,
    )
    return earlier


def _facts(loaded: Loaded, options: FinetuneOptions) -> dict[str, Any]:
    """Return what tells a run from others in a record."""
    return {
        "network": str(dense_architecture(loaded.checkpoint)),
        "start": loaded.sha256,
        "seed": options.seed,
        "epochs": options.epochs,
    }
