"""`export` on files: write ONNX, prove it, time it."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.artefacts.dense import dense_network, flops_ratio
from prunecli.artefacts.history import history_of
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import check_output, dense_architecture, provenance, read
from prunecli.artefacts.sparse import stored_sparsity
from prunecli.html import export_page
from prunecli.options import ExportOptions, LoadOptions
from prunecli.options.declare import check_effect
from prunecli.progress import Progress, Step, silent
from prunecli.report import BenchmarkRow, ExportReport, RunStep
from prunecli.verbs.showing import Show, check_show, gates_text, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.checkpoint import Checkpoint, Loaded
    from prunecli.errors import GateError


def export(
    model: Path,
    *,
    output: Path | None = None,
    against: Path | None = None,
    options: ExportOptions | None = None,
    load: LoadOptions | None = None,
    page: Path | None = None,
    plots: Path | None = None,
    overwrite: bool = False,
    gates: Callable[[ExportReport], GateError | None] | None = None,
    command: str = "",
    progress: Progress = silent,
) -> ExportReport:
    """Write ONNX, prove it equal to torch, and time it beside the dense network.

    The dense network is `against`; without it, the architecture that the artefact was cut from,
    with random weights (its speed does not depend on them). `page` is an HTML file, `plots` a
    folder for pictures; the page says whether `gates` found anything missing.
    """
    from prunecli import exporting

    start = time.perf_counter()
    options = options or ExportOptions()
    check_effect(options)
    target = output or Path(f"{model.stem}.onnx")
    check_output(target, inputs=[model], overwrite=overwrite)
    show = Show(page, plots)
    check_show(show, "export", inputs=[model, against], overwrite=overwrite)
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
    warnings = [*loaded.warnings, *_about_zeros(checkpoint)]
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
    report = ExportReport(
        output=target,
        opset=file.opset,
        bytes=file.bytes,
        parity=parity,
        benchmark=rows,
        seconds=round(time.perf_counter() - start, 3),
        warnings=tuple(warnings),
        architecture=str(dense_architecture(checkpoint)),
        history=(*history_of(checkpoint), RunStep("export", command, model.name)),
    )
    return shown(report, show, partial(export_page, gates=gates_text(gates, report)))


def _about_zeros(checkpoint: Checkpoint) -> list[str]:
    """Say that zeros take room and time in ONNX, which knows no sparse weights that run fast."""
    sparsity = stored_sparsity(checkpoint)
    if sparsity is None:
        return []
    note = (
        f"{sparsity.sparsity:.1%} of the weights are zero; ONNX holds and runs them like others: "
        "the file is as large and as slow as that of the dense network"
    )
    return [note]


def _onnx_metadata(loaded: Loaded, model: Path, command: str, seed: int) -> dict[str, str]:
    import json

    step = RunStep("export", command, model.name)
    facts = provenance(loaded, model, command=command, seed=seed, step=step)
    return {"provenance": json.dumps(facts, sort_keys=True)}
