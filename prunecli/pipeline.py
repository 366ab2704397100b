"""The verbs, on files: the only place that knows the order of things."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.artefacts import (
    check_output,
    cut_checkpoint,
    dense_architecture,
    example_input,
    provenance,
    read,
    state_of,
)
from prunecli.checkpoint import InputSpec, Loaded, save
from prunecli.data import DataSource, check_classes, evaluation_split, load_split, open_source
from prunecli.dense_network import dense_network, flops_ratio
from prunecli.errors import InputError
from prunecli.instantiate import instantiate
from prunecli.network import Clock, read_network
from prunecli.network_data import class_count, measuring_batches, scoring_batches
from prunecli.options import (
    AnalyzeOptions,
    ExportOptions,
    FinetuneOptions,
    LoadOptions,
    PruneOptions,
)
from prunecli.progress import Progress, Step, silent
from prunecli.pruning import prune_network
from prunecli.report import (
    AccuracyChange,
    AnalyzeReport,
    BenchmarkRow,
    DatasetAnalysis,
    Evaluation,
    ExportReport,
    FinetuneReport,
    ModelAnalysis,
    PruneReport,
)

if TYPE_CHECKING:
    from prunecli.budget import Budget


def prune(
    model: Path,
    *,
    output: Path | None = None,
    budget: Budget,
    options: PruneOptions | None = None,
    load: LoadOptions | None = None,
    data: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> PruneReport:
    """Cut the network in `model` until it keeps `budget`, prove the cut, and write it.

    `output` defaults to `<stem>.pruned.pt` in the current folder. Nothing is written for a dry run,
    nor when anything fails.
    """
    options = options or PruneOptions()
    target = output or Path(f"{model.stem}.pruned.pt")
    if not dry_run:
        check_output(target, inputs=[model], overwrite=overwrite)
    clock = Clock(progress)
    with clock.stage("load"):
        loaded = read(model, load)
        network = instantiate(loaded.checkpoint)
    checkpoint = loaded.checkpoint
    result = prune_network(
        network,
        [example_input(checkpoint.input)],
        budget=budget,
        options=options,
        batches=scoring_batches(checkpoint, data, options, progress),
        measured_on=measuring_batches(checkpoint, data, options, progress),
        dry_run=dry_run,
        architecture=str(dense_architecture(checkpoint)),
        progress=progress,
    )
    seconds = {**clock.seconds, **result.report.seconds}
    report = dataclasses.replace(
        result.report, seconds=seconds, warnings=(*loaded.warnings, *result.report.warnings)
    )
    if dry_run or result.model is None:
        return report
    with clock.stage("save"):
        save(cut_checkpoint(loaded, result, model, command=command), target)
    seconds = {**seconds, "save": clock.seconds["save"]}
    return dataclasses.replace(report, output=target, seconds=seconds)


def analyze(
    *,
    model: Path | None = None,
    data: str | None = None,
    options: AnalyzeOptions | None = None,
    load: LoadOptions | None = None,
    progress: Progress = silent,
) -> AnalyzeReport:
    """Look at a model, at a data set, or at a model with a data set."""
    start = time.perf_counter()
    options = options or AnalyzeOptions()
    warnings: list[str] = []
    source = None if data is None else open_source(data)
    found_model, found_data = None, None
    if model is not None:
        found_model = _analyze_model(
            model, source, options=options, load=load, warnings=warnings, progress=progress
        )
    if source is not None:
        found_data = _analyze_data(source, options, progress)
        warnings.extend(found_data.warnings)
        warnings.extend(source.problems)
    return AnalyzeReport(
        model=found_model,
        dataset=found_data,
        seconds=round(time.perf_counter() - start, 3),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def finetune(
    model: Path,
    *,
    data: str,
    output: Path | None = None,
    teacher: Path | None = None,
    options: FinetuneOptions | None = None,
    load: LoadOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> FinetuneReport:
    """Train the network in `model` on `data`, with `teacher` as the teacher where one is given.

    `output` defaults to `<stem>.finetuned.pt` in the current folder; the log and the state that
    `resume` goes on from lie in `<output stem>.run/` beside it.
    """
    from prunecli import training

    start = time.perf_counter()
    options = options or FinetuneOptions()
    target = output or Path(f"{model.stem}.finetuned.pt")
    check_output(target, inputs=[model, *([teacher] if teacher else [])], overwrite=overwrite)
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
    test = load_split(
        source,
        split,
        input=checkpoint.input,
        seed=options.seed,
        progress=progress,
    )
    before = training.evaluate(network, test, input=checkpoint.input, progress=progress)
    result = training.finetune(
        network,
        source,
        input=checkpoint.input,
        options=options,
        teacher=None if taught is None else instantiate(taught.checkpoint),
        teacher_input=None if taught is None else taught.checkpoint.input,
        run_dir=run_dir,
        resume=resume,
        progress=progress,
    )
    after = training.evaluate(result.model, test, input=checkpoint.input, progress=progress)
    accuracy = AccuracyChange(before.accuracy, after.accuracy, split)
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
        ),
    )
    if training.is_main_process():
        save(trained, target)
    return FinetuneReport(
        output=target,
        accuracy=accuracy,
        held_out=AccuracyChange(
            result.held_out_before.accuracy, result.held_out_after.accuracy, "held_out"
        ),
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        log=result.log,
        seconds=round(time.perf_counter() - start, 3),
        warnings=_merge(loaded.warnings, result.warnings, test.warnings),
    )


def evaluate(
    model: Path,
    *,
    data: str,
    split: str = "auto",
    batch_size: int = 256,
    limit: int | None = None,
    load: LoadOptions | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Score a checkpoint or an ONNX file on the images of one split."""
    from prunecli import exporting, training

    source = open_source(data)
    chosen = evaluation_split(source) if split == "auto" else split
    load = load or LoadOptions()
    if model.suffix.lower() == ".onnx":
        spec = _onnx_input(model, load)
        images = load_split(source, chosen, input=spec, limit=limit, progress=progress)
        return exporting.evaluate_onnx(
            model, images, batch_size=batch_size, input=spec, progress=progress
        )
    loaded = read(model, load)
    network = instantiate(loaded.checkpoint)
    spec = loaded.checkpoint.input
    check_classes(class_count(network, spec), source, names=loaded.checkpoint.classes)
    images = load_split(source, chosen, input=spec, limit=limit, progress=progress)
    scores = training.evaluate(
        network, images, input=spec, batch_size=batch_size, progress=progress
    )
    return dataclasses.replace(scores, warnings=_merge(loaded.warnings, scores.warnings))


def export(
    model: Path,
    *,
    output: Path | None = None,
    against: Path | None = None,
    options: ExportOptions | None = None,
    load: LoadOptions | None = None,
    overwrite: bool = False,
    command: str = "",
    progress: Progress = silent,
) -> ExportReport:
    """Write ONNX, prove it equal to torch, and time it beside the dense network.

    The dense network is `against`; without it, the architecture that the artefact was cut from,
    with random weights (its speed does not depend on them).
    """
    from prunecli import exporting

    start = time.perf_counter()
    options = options or ExportOptions()
    target = output or Path(f"{model.stem}.onnx")
    check_output(target, inputs=[model], overwrite=overwrite)
    if options.benchmark:
        exporting.check_devices(options.devices)
    loaded = read(model, load)
    checkpoint = loaded.checkpoint
    network = instantiate(checkpoint)
    progress(Step("export", 0))
    file, parity = exporting.to_proven_onnx(
        network,
        target,
        input=checkpoint.input,
        opset=options.opset,
        classes=checkpoint.classes,
        metadata=_onnx_metadata(loaded, model, command, options.seed),
        tolerance=options.tolerance,
        seed=options.seed,
    )
    warnings = list(loaded.warnings)
    rows: tuple[BenchmarkRow, ...] = ()
    if options.benchmark:
        with tempfile.TemporaryDirectory() as folder:
            dense = dense_network(checkpoint, against, load, warnings)
            dense_file = Path(folder) / "dense.onnx"
            if dense is not None:
                progress(Step("export dense", 0))
                exporting.to_onnx(dense, dense_file, input=checkpoint.input, opset=options.opset)
            rows = exporting.benchmark(
                target,
                None if dense is None else dense_file,
                input=checkpoint.input,
                devices=options.devices,
                batches=options.batches,
                threads=options.threads,
                flops_ratio=flops_ratio(network, dense, checkpoint.input),
                slim_model=network,
                dense_model=dense,
                runs=options.runs,
                seed=options.seed,
                progress=progress,
            )
        warnings.extend(
            f"the slim network is slower than the dense one on {row.device} at batch {row.batch}: "
            f"{row.speedup:.2f}x"
            for row in rows
            if row.speedup is not None and row.speedup < 1
        )
    return ExportReport(
        output=target,
        opset=file.opset,
        bytes=file.bytes,
        parity=parity,
        benchmark=rows,
        seconds=round(time.perf_counter() - start, 3),
        warnings=tuple(warnings),
    )


# --- parts of the verbs --------------------------------------------------------------------------


def _analyze_model(
    path: Path,
    source: DataSource | None,
    *,
    options: AnalyzeOptions,
    load: LoadOptions | None,
    warnings: list[str],
    progress: Progress,
) -> ModelAnalysis:
    from prunecli.analysis import analyze_network

    loaded = read(path, load)
    checkpoint = loaded.checkpoint
    warnings.extend(loaded.warnings)
    model = instantiate(checkpoint)
    network = read_network(model, [example_input(checkpoint.input)], clock=Clock(progress))
    images, batches = None, None
    if source is not None:
        check_classes(network.outputs, source, names=checkpoint.classes)
        images = load_split(
            source,
            "held_out",
            input=checkpoint.input,
            seed=options.seed,
            limit=options.limit,
            progress=progress,
        )
        choice = PruneOptions(signal=options.signal, seed=options.seed, limit=options.limit)
        batches = scoring_batches(
            checkpoint, str(source.path), choice, progress, wanted=options.oracle
        )
    return analyze_network(
        network,
        options=options,
        architecture=str(dense_architecture(checkpoint)),
        images=images,
        input=checkpoint.input,
        batches=batches,
        progress=progress,
    )


def _analyze_data(
    source: DataSource, options: AnalyzeOptions, progress: Progress
) -> DatasetAnalysis:
    from prunecli.complexity import analyze_dataset

    return analyze_dataset(source, seed=options.seed, progress=progress)


def _onnx_input(path: Path, load: LoadOptions) -> InputSpec:
    from prunecli.exporting import read_metadata

    spec = read_metadata(path).input
    if spec is None and not (load.input_size and load.mean and load.std):
        raise InputError(
            "the file does not say how images become its input",
            code="NO_INPUT_SPEC",
            where=str(path),
            hint="add --input-size, --mean and --std",
        )
    mean = load.mean or (spec.mean if spec else ())
    height, width = load.input_size or (spec.height if spec else 0, spec.width if spec else 0)
    return InputSpec(len(mean), height, width, mean, load.std or (spec.std if spec else ()))


def _onnx_metadata(loaded: Loaded, model: Path, command: str, seed: int) -> dict[str, str]:
    import json

    facts = provenance(loaded, model, command=command, seed=seed)
    return {"provenance": json.dumps(facts, sort_keys=True)}


def _merge(*warnings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for group in warnings for item in group))
