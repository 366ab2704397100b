"""`export` on files: write a network in another format, prove it, time it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.artefacts.dense import dense_network, flops_ratio
from prunecli.artefacts.history import history_of
from prunecli.artefacts.provenance import provenance
from prunecli.artefacts.sparse import stored_sparsity
from prunecli.atomic import check_output
from prunecli.data import open_source
from prunecli.lifetime.claims import claiming
from prunecli.options import ExportOptions, LoadOptions
from prunecli.options.declare import check_effect
from prunecli.preflight.exporting import default_ending
from prunecli.preflight.outputs import PICTURES
from prunecli.progress import Progress, Step, silent
from prunecli.report import NO_GATES, BenchmarkRow, ExportReport, Gates, RunStep
from prunecli.report.steadiness import unsteady_warnings
from prunecli.verbs.exported import Exported, exported, request_of
from prunecli.verbs.opened import Opened, open_model
from prunecli.verbs.showing import Show, check_show, shown

if TYPE_CHECKING:
    from torch import nn

    from prunecli.checkpoint import Checkpoint, Loaded
    from prunecli.exporting import ExportFormat, Timer


@claiming
def export(
    model: Path,
    *,
    output: Path | None = None,
    against: Path | None = None,
    data: str | None = None,
    options: ExportOptions | None = None,
    load: LoadOptions | None = None,
    page: Path | None = None,
    plots: Path | None = None,
    overwrite: bool = False,
    gates: Gates = NO_GATES,
    command: str = "",
    progress: Progress = silent,
) -> ExportReport:
    """Write a network for other engines, prove it equal to torch, and time it.

    The ending of `output` chooses the format; without it, that is ONNX. It is timed beside the
    dense network `against`; without one, the architecture that the artefact was cut from, with
    random weights (its speed does not depend on them). Another precision is compared with the float
    file on images of `data`, and timed beside it; its name is `<stem>.int8.onnx`, say. `page` is an
    HTML file, `plots` a folder for pictures; the page says whether `gates` are met.
    """
    from prunecli import exporting
    from prunecli.exporting.timing.clocks import watched

    start = time.perf_counter()
    options = options or ExportOptions()
    check_effect(options, data=data)
    target = output or Path(f"{model.stem}{default_ending(options.precision)}")
    check_output(target, inputs=[model], overwrite=overwrite)
    show = Show(page, plots, gates=gates)
    check_show(show, PICTURES["export"], inputs=[model, against], overwrite=overwrite)
    form = exporting.format_of(target)
    exporting.writer_of(form, dynamic_size=options.dynamic_size)
    if options.precision:
        exporting.converter_of(form, options.precision)
    if data is not None:
        open_source(data)
    timer = form.timer if options.benchmark else None
    if timer is not None:
        timer.check_devices(options.devices, runtimes=options.runtimes)
    opened = open_model(model, load)
    checkpoint = opened.checkpoint
    warnings = [*opened.loaded.warnings, *_about_zeros(checkpoint, form.label)]
    metadata = _metadata(opened.loaded, model, target, command, options.seed)
    # Read before anything is written: a dense model that cannot be is no reason for half a result.
    dense = None if timer is None else dense_network(checkpoint, against, load, warnings)
    progress(Step("export", 0))
    request = request_of(
        options,
        data,
        model=opened.model,
        input=checkpoint.input,
        classes=checkpoint.classes,
        progress=progress,
    )
    with exported(
        form,
        opened.model,
        target,
        request=request,
        options=options,
        classes=checkpoint.classes,
        metadata=metadata,
    ) as done:
        warnings.extend(done.notes)
        rows: tuple[BenchmarkRow, ...] = ()
        if options.benchmark and timer is None:
            warnings.append(f"{form.label} files cannot be timed here")
        if timer is not None:
            with watched() as watch:
                rows = _timed(form, timer, done, opened, dense, options=options, progress=progress)
            busy = watch.warnings(threads=rows[0].threads) if rows else []
            warnings.extend((*busy, *unsteady_warnings(rows), *_slower(rows)))
    report = ExportReport(
        output=target,
        opset=done.file.opset,
        format=form.label,
        bytes=done.file.bytes,
        parity=done.parity,
        benchmark=rows,
        seconds=round(time.perf_counter() - start, 3),
        warnings=tuple(warnings),
        architecture=opened.architecture,
        history=(*history_of(checkpoint), RunStep("export", command, model.name)),
        conversion=done.conversion,
    )
    return shown(report, show)


def _timed(
    form: ExportFormat,
    timer: Timer,
    done: Exported,
    opened: Opened,
    dense: nn.Module | None,
    *,
    options: ExportOptions,
    progress: Progress,
) -> tuple[BenchmarkRow, ...]:
    """Time the file beside the dense network and the float file, where there are any."""
    spec = opened.checkpoint.input
    with tempfile.TemporaryDirectory() as folder:
        dense_file = None
        if dense is not None:
            dense_file = Path(folder) / f"dense{form.endings[0]}"
            progress(Step("export dense", 0))
            form.write(dense, dense_file, input=spec, opset=options.opset)
        beside = {} if done.float_file is None else {"float_onnx": done.float_file}
        return timer.run(
            done.file.path,
            dense_file,
            input=spec,
            devices=options.devices,
            runtimes=options.runtimes,
            batches=options.batches,
            threads=options.threads,
            flops_ratio=flops_ratio(opened.model, dense, spec),
            slim_model=opened.model if done.float_file is None else None,
            dense_model=dense,
            runs=options.runs,
            seed=options.seed,
            progress=progress,
            **beside,
        )


def _slower(rows: tuple[BenchmarkRow, ...]) -> list[str]:
    """Say where a cut network is not faster than the dense one, or INT8 not faster than float."""
    return [
        f"the file is slower than in float on {row.device} at batch {row.batch}: {row.gain:.2f}x"
        for row in rows
        if row.gain_high is not None and row.gain_high < 1
    ] + [
        f"the pruned model is slower than the dense one on {row.device} at batch {row.batch}: "
        f"{row.speedup:.2f}x"
        for row in rows
        if row.speedup is not None and row.speedup < 1
    ]


def _about_zeros(checkpoint: Checkpoint, label: str) -> list[str]:
    """Say that zeros take room and time in formats that know no sparse weights that run fast."""
    sparsity = stored_sparsity(checkpoint)
    if sparsity is None:
        return []
    note = (
        f"{sparsity.sparsity:.1%} of the weights are zero; {label} holds and runs them like "
        "others: the file is as large and as slow as that of the dense model"
    )
    return [note]


def _metadata(loaded: Loaded, model: Path, target: Path, command: str, seed: int) -> dict[str, str]:
    import json

    step = RunStep("export", command, model.name)
    facts = provenance(loaded, model, target=target, command=command, seed=seed, step=step)
    return {"provenance": json.dumps(facts, sort_keys=True)}
