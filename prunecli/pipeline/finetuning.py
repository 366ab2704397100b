"""`finetune` on files: read, train, score, write."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from prunecli.artefacts import (
    check_output,
    dense_architecture,
    example_input,
    provenance,
    read,
    state_of,
    versions,
)
from prunecli.checkpoint import save
from prunecli.data import check_classes, evaluation_split, load_split, open_source
from prunecli.errors import InputError
from prunecli.history import history_of
from prunecli.html import finetune_page
from prunecli.instantiate import instantiate
from prunecli.learnability import write_record
from prunecli.network import read_network
from prunecli.network_data import class_count
from prunecli.options import FinetuneOptions, LoadOptions
from prunecli.pipeline.showing import Show, check_show, shown
from prunecli.pipeline.sparsifying import keeping_zeros, save_proven, stored_sparsity
from prunecli.pipeline.warnings import merged
from prunecli.progress import Progress, silent
from prunecli.report import AccuracyChange, FinetuneReport, RunStep
from prunecli.sparse.layers import weight_layers


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
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> FinetuneReport:
    """Train the network in `model` on `data`, with `teacher` as the teacher where one is given.

    `output` defaults to `<stem>.finetuned.pt` in the current folder; the log and the state that
    `resume` goes on from lie in `<output stem>.run/` beside it. `record` is where it is written
    which training images were right after which epoch (Parquet); `page` is an
    HTML file, `plots` a folder for pictures.
    """
    from prunecli import training

    start = time.perf_counter()
    options = dataclasses.replace(
        options or FinetuneOptions(), record_learnability=record is not None
    )
    target = output or Path(f"{model.stem}.finetuned.pt")
    check_output(target, inputs=[model, *([teacher] if teacher else [])], overwrite=overwrite)
    show = Show(page, plots)
    check_show(show, "finetune", inputs=[model, data, teacher], overwrite=overwrite)
    if record is not None:
        check_output(record, inputs=[model, target], overwrite=overwrite)
    run_dir = target.with_suffix(".run")
    if not (resume or overwrite) and training.has_state(run_dir):
        raise InputError(
            "a run that was stopped lies in the folder of this one",
            code="UNFINISHED_RUN",
            where=str(run_dir),
            hint="go on with it (--resume), or start from the beginning (--overwrite)",
        )
    loaded = read(model, load)
    checkpoint, source = loaded.checkpoint, open_source(data)
    network = instantiate(checkpoint)
    taught = None if teacher is None else read(teacher, load)
    check_classes(class_count(network, checkpoint.input), source, names=checkpoint.classes)
    split = evaluation_split(source, trained=True)
    test = load_split(source, split, input=checkpoint.input, seed=options.seed, progress=progress)
    layers = (
        weight_layers(read_network(network, [example_input(checkpoint.input)]))
        if options.sparsity is not None
        else ()
    )
    before = training.evaluate(network, test, input=checkpoint.input, progress=progress)
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
    after = training.evaluate(result.model, test, input=checkpoint.input, progress=progress)
    accuracy = AccuracyChange(before.accuracy, after.accuracy, split)
    dense = None
    if taught is not None:
        spec = taught.checkpoint.input
        seen = test
        if spec != checkpoint.input:
            seen = load_split(source, split, input=spec, seed=options.seed, progress=progress)
        known = instantiate(taught.checkpoint)
        dense = training.evaluate(known, seen, input=spec, progress=progress).accuracy
    step = RunStep(
        verb="finetune",
        command=command,
        input=model.name,
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
            facts = {
                **result.record.facts,
                "network": str(dense_architecture(checkpoint)),
                "data": data,
                "command": command,
                "versions": versions(),
            }
            write_record(dataclasses.replace(result.record, facts=facts), record)
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
        architecture=str(dense_architecture(checkpoint)),
        teacher=dense,
        history=(*history_of(checkpoint), step),
    )
    return shown(report, show, finetune_page) if training.is_main_process() else report
