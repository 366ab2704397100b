"""`finetune` on files: read, train, score, write."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.artefacts.history import history_of
from prunecli.artefacts.provenance import (
    provenance,
    state_of,
)
from prunecli.artefacts.sparse import keeping_zeros, save_proven, stored_sparsity
from prunecli.atomic import check_output
from prunecli.checkpoint import Loaded, save
from prunecli.data import (
    DataSource,
    check_classes,
    evaluation_split,
    load_split,
    open_images,
    open_source,
)
from prunecli.data.decode import preparation
from prunecli.errors import InputError
from prunecli.evaluation.batches import HELD_OUT
from prunecli.learnability import (
    Record,
    read_record,
)
from prunecli.lifetime.claims import claiming
from prunecli.options import FinetuneOptions, LoadOptions
from prunecli.options.declare import changes_of, check_effect, effective, values_of
from prunecli.options.finetune import OUTPUTS
from prunecli.options.shared import teacher_file
from prunecli.preflight.outputs import PICTURES
from prunecli.preflight.training import check_teaching, nobody_to_follow
from prunecli.processes import join, joined
from prunecli.progress import Clock, Progress, silent
from prunecli.report import NO_GATES, AccuracyChange, FinetuneReport, Gates, RunStep
from prunecli.sparse.layers import weight_layers
from prunecli.verbs.finetune_record import earlier_record, facts_of, write_learned
from prunecli.verbs.images import class_count
from prunecli.verbs.new_head import with_head_for
from prunecli.verbs.opened import Opened, open_model
from prunecli.verbs.scored_run import Scored, Scores
from prunecli.verbs.showing import Show, check_show, shown
from prunecli.verbs.teaching import Taught, named_teacher, teacher_from_history
from prunecli.verbs.unfinished import check_no_run
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from prunecli.architectures.reference import InputSpec
    from prunecli.checkpoint import Checkpoint
    from prunecli.data import ImageSet
    from prunecli.sparse.layers import WeightLayer
    from prunecli.training import FinetuneResult, HeadFirst


@dataclass(frozen=True)
class _Run:
    """What is asked of a training: the arguments of `finetune`, with its defaults filled in."""

    model: Path
    data: str
    target: Path
    teacher: Path | None
    options: FinetuneOptions
    load: LoadOptions | None
    record: Path | None
    continue_record: bool
    resume: bool
    overwrite: bool
    command: str
    progress: Progress
    said: Collection[str]

    @property
    def run_dir(self) -> Path:
        """Where the log and the state that a run goes on from lie."""
        return self.target.with_suffix(".run")


@claiming
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
    gates: Gates = NO_GATES,
    said: Collection[str] | None = None,
    command: str = "",
    progress: Progress = silent,
) -> FinetuneReport:
    """Train the network in `model` on `data`, taught by `teacher`.

    Without one that is what the model was pruned from, if that file still is where it was; the path
    `none` is nobody.

    `output` defaults to `<stem>.finetuned.pt` in the current folder; the log and the state that
    `resume` goes on from lie in `<output stem>.run/` beside it. `record` is where it is written
    which training images were right after which epoch (Parquet); with `continue_record` the
    epochs are added to a record that is there, of the same network on the same images. `page` is
    an HTML file, `plots` a folder for pictures; the page says whether `gates` are met. `said` names
    the options that are refused where nobody teaches and nothing follows them (None: every one).
    """
    run = _Run(
        model,
        data,
        target=output or Path(f"{model.stem}.finetuned.pt"),
        teacher=teacher,
        options=dataclasses.replace(
            options or FinetuneOptions(), record_learnability=record is not None
        ),
        load=load,
        record=record,
        continue_record=continue_record,
        resume=resume,
        overwrite=overwrite,
        command=command,
        progress=progress,
        said=(*values_of(FinetuneOptions()), "max_drop") if said is None else said,
    )
    show = Show(page, plots, gates=gates)
    report = _tuned(run, show)
    if report.taught_by is None:  # a setting that nothing follows is no gate
        show = dataclasses.replace(show, gates=dataclasses.replace(gates, max_drop=None))
    return shown(report, show) if joined().is_main else report


def _tuned(run: _Run, show: Show) -> FinetuneReport:
    """Check, read, train, score and write."""
    from prunecli import training

    start = time.perf_counter()
    join()
    _check(run, show)
    opened = open_model(run.model, run.load)
    checkpoint = opened.checkpoint
    training.check_frozen(opened.model, run.options.freeze)
    training.check_regularizer(run.options, opened.model, masks=checkpoint.masks)
    opened, head = _with_head(run, opened)
    source, taught = _told(run, opened)
    checkpoint = opened.checkpoint
    run = run if taught.opened is not None else _alone(run, show.gates)
    goes_on = run.continue_record
    earlier = earlier_record(run.record, opened.loaded, source, run.options) if goes_on else None
    layers = (
        weight_layers(opened.network(Clock(silent))) if run.options.sparsity is not None else ()
    )
    result, scores = _trained(run, opened, taught, source, layers, head=head)
    step = RunStep(
        verb="finetune",
        command=run.command,
        input=run.model.name,
        sparsity=run.options.sparsity,
        accuracy=scores.accuracy,
        teacher=scores.teacher,
        epochs=len(result.epochs),
        best_epoch=result.best_epoch,
    )
    named = run.options.loss != OUTPUTS and bool(source.classes)
    classes = source.classes if named else checkpoint.classes
    trained = _checkpoint(run, opened.loaded, result, step, layers=layers, classes=classes)
    _write(run, opened.loaded, trained, result, earlier)
    return FinetuneReport(
        output=run.target,
        accuracy=scores.accuracy,
        held_out=AccuracyChange(
            result.held_out_before.accuracy,
            result.held_out_after.accuracy,
            HELD_OUT,
            scores.accuracy.measure,
        ),
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        log=result.log,
        record=run.record,
        seconds=round(time.perf_counter() - start, 3),
        warnings=merged(taught.warnings, opened.loaded.warnings, result.warnings, scores.warnings),
        sparsity=stored_sparsity(trained, before=run.model, after=run.target),
        sampling=result.sampling,
        precision=result.precision,
        architecture=opened.architecture,
        preparation=preparation(checkpoint.input),
        teacher=scores.teacher,
        history=(*history_of(checkpoint), step),
        taught_by=taught.report,
        threads=result.threads,
        stopped_early=result.stopped_early,
        imitated=result.task.report if isinstance(result.task, training.Imitation) else (),
        outputs=scores.outputs,
        augmentation=result.augmentation,
    )


def _with_head(run: _Run, opened: Opened) -> tuple[Opened, str | None]:
    """Return the model to train, and the path of its new classifier if it was given one."""
    from prunecli import training

    if not run.options.new_head:
        return opened, None
    classes = open_source(run.data).classes
    changed, head = with_head_for(opened, classes, seed=run.options.seed)
    training.check_head_trained(head, run.options.freeze)
    return changed, head


def _told(run: _Run, opened: Opened) -> tuple[DataSource, Taught]:
    """Return the data and the teacher, which fit the model and what is trained for."""
    from prunecli import training

    spec = opened.checkpoint.input
    if run.options.loss != OUTPUTS:
        source = open_source(run.data)
        if source.has_masks:
            training.map_count(opened.model, spec)
            return source, _taught(run, opened, None)
        classes = class_count(opened.model, spec)
        check_classes(classes, source, names=opened.checkpoint.classes, replaceable=True)
        return source, _taught(run, opened, classes)
    source, taught = open_images(run.data), _taught(run, opened, None)
    if taught.opened is None:
        error = nobody_to_follow()
        raise InputError(
            "; ".join((error.message, *taught.warnings)), code=error.code, hint=error.hint
        )
    training.check_following(
        opened.model,
        taught.opened.model,
        input=spec,
        teacher_input=taught.opened.checkpoint.input,
        match=run.options.match,
    )
    return source, taught


def _taught(run: _Run, opened: Opened, classes: int | None) -> Taught:
    """Return the teacher that was named, or else what the model was pruned from."""
    if run.teacher is not None:
        return named_teacher(run.teacher, run.load, classes=classes)
    return teacher_from_history(opened, run.model, classes=classes)


def _alone(run: _Run, gates: Gates) -> _Run:
    """Return a run that nobody teaches; raise `InputError` for what was said of a teacher."""
    if gates.max_drop is not None and "max_drop" in run.said:
        raise InputError(
            "--max-drop compares with a teacher, and there is none",
            code="OPTION_WITHOUT_EFFECT",
            hint="add --teacher MODEL",
        )
    changed = [name for name in run.said if name in changes_of(run.options)]
    return dataclasses.replace(run, options=effective(run.options, changed, teacher=False))


def _check(run: _Run, show: Show) -> None:
    """Raise `InputError` for outputs and options that cannot be, before any work."""
    from prunecli import training

    check_effect(run.options, teacher=run.teacher)
    check_teaching(run.options, run.teacher)
    named = teacher_file(run.teacher)
    inputs = [run.model, *([] if named is None else [named])]
    check_output(run.target, inputs=inputs, overwrite=run.overwrite)
    check_show(
        show,
        PICTURES["finetune"],
        inputs=[*inputs, run.data],
        overwrite=run.overwrite,
    )
    if run.record is not None:
        fine = run.overwrite or run.continue_record
        check_output(run.record, inputs=[run.model, run.target], overwrite=fine)
    training.check_options(run.options)
    for file in (*run.options.curriculum, *run.options.importance_sampling):
        read_record(file)
    if not (run.resume or run.overwrite):
        check_no_run(run.run_dir)


def _trained(
    run: _Run,
    opened: Opened,
    taught: Taught,
    source: DataSource,
    layers: Sequence[WeightLayer],
    *,
    head: str | None,
) -> tuple[FinetuneResult, Scores]:
    """Train, and score before and after on images that no choice was made on, if there are any."""
    from prunecli import training

    spec, seed, progress = opened.checkpoint.input, run.options.seed, run.progress
    place = training.device_of(run.options.device)
    split = evaluation_split(source, trained=True)
    test = load_split(source, split, input=spec, seed=seed, progress=progress)
    result = training.finetune(
        opened.model,
        source,
        input=spec,
        options=run.options,
        teacher=taught.model,
        teacher_input=taught.input,
        teacher_classes=taught.classes,
        masks=opened.checkpoint.masks,
        layers=layers,
        method=None if head is None else _head_first(head, run.options),
        run_dir=run.run_dir,
        resume=run.resume,
        progress=progress,
    )
    scored = Scored(test, spec, place, joined(), progress)
    if isinstance(result.task, training.Imitation):
        return result, scored.following(result.task, opened.model, result.model)

    def images_for(own: InputSpec) -> ImageSet:
        if own == spec:
            return test
        return load_split(source, split, input=own, seed=seed, progress=progress)

    return result, scored.by_labels(opened.model, result.model, taught, images_for)


def _head_first(head: str, options: FinetuneOptions) -> HeadFirst:
    from prunecli import training

    epochs = training.head_epochs(options.epochs, options.head_epochs)
    return training.HeadFirst(head, epochs=epochs, first_rate=options.first_rate)


def _checkpoint(
    run: _Run,
    loaded: Loaded,
    result: FinetuneResult,
    step: RunStep,
    *,
    layers: Sequence[WeightLayer],
    classes: tuple[str, ...] | None,
) -> Checkpoint:
    """Return what was trained as it is to be stored, with where it comes from."""
    assert step.accuracy is not None
    facts = {
        "accuracy": dataclasses.asdict(step.accuracy),
        "data": run.data,
        "augmentation": result.augmentation,
    }
    trained = dataclasses.replace(
        loaded.checkpoint,
        tensors=state_of(result.model),
        classes=classes,
        metadata=provenance(
            loaded,
            run.model,
            target=run.target,
            command=run.command,
            seed=run.options.seed,
            facts=facts,
            step=step,
        ),
    )
    return keeping_zeros(trained, result.model, result.masks, layers=layers, options=run.options)


def _write(
    run: _Run, loaded: Loaded, trained: Checkpoint, result: FinetuneResult, earlier: Record | None
) -> None:
    """Write the checkpoint, and what was learned when; one process of several does."""
    if not joined().is_main:
        return
    save_proven(trained, run.target) if trained.masks else save(trained, run.target)
    if run.record is not None and result.record is not None:
        facts = {**facts_of(loaded, run.options), "data": run.data, "command": run.command}
        write_learned(run.record, result.record, earlier=earlier, facts=facts)
