"""`compare` on files: several models side by side, each beside the first."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.data.decode import preparation
from prunecli.errors import InputError
from prunecli.exporting import check_devices
from prunecli.exporting.timing.race import race
from prunecli.html import write_page
from prunecli.html.comparison import compare_page
from prunecli.options import CompareOptions
from prunecli.options.declare import check_effect
from prunecli.preflight.outputs import check_page
from prunecli.progress import Progress, silent
from prunecli.report import ComparedModel, CompareReport, TimingRow
from prunecli.report.steadiness import unsteady_timings
from prunecli.verbs.answers import Answered, Answers, on_data, on_random
from prunecli.verbs.entrants import Entrant, enter, racers
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.options import LoadOptions


def compare(
    models: Sequence[Path],
    *,
    data: str | None = None,
    options: CompareOptions | None = None,
    load: LoadOptions | None = None,
    page: Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> CompareReport:
    """Return costs, size, time, accuracy and agreement of models, artefacts and ONNX files.

    `data` are images to score them on; without any, agreement is that on random inputs. All are
    timed as ONNX, in turns. `page` is an HTML file to write. Raises what reading any of the models
    raises, before any of them is run.
    """
    start = time.perf_counter()
    options = options or CompareOptions()
    check_effect(options, data=data)
    if page is not None:
        check_page(page, inputs=[*models], overwrite=overwrite)
    if not options.no_latency:
        check_devices(options.devices, runtimes=options.runtimes)
    entrants = enter(models, load)
    if data is None:
        answers = on_random(entrants, options, progress)
    else:
        _check_any_input(entrants)
        answers = on_data(entrants, data, options, progress)
    missing: dict[str, str] = {}
    rows = () if options.no_latency else _timed(entrants, options, missing, progress)
    notes = tuple(f"{one.name}: {text}" for one in entrants for text in one.warnings)
    report = CompareReport(
        models=tuple(
            _compared(one, entrants[0], found, missing, on_images=data is not None)
            for one, found in zip(entrants, answers.models, strict=True)
        ),
        data=data,
        split=answers.split,
        images=answers.images,
        latency=rows,
        seconds=round(time.perf_counter() - start, 3),
        warnings=merged(notes, _without_data(data, answers), tuple(unsteady_timings(rows))),
        page=page,
    )
    if page is not None:
        write_page(page, compare_page(report))
    return report


def _check_any_input(entrants: Sequence[Entrant]) -> None:
    """Raise `InputError` where no model says how images become its input."""
    if all(one.spec is None for one in entrants):
        raise InputError(
            "none of the files says how images become its input",
            code="NO_INPUT_SPEC",
            where=str(entrants[0].file),
            hint="add --mean and --std",
        )


def _without_data(data: str | None, answers: Answers) -> tuple[str, ...]:
    """Say what agreement on random inputs is worth."""
    if data is not None:
        return answers.warnings
    note = "agreement is that on random inputs, which are no images: --data gives some"
    return (*answers.warnings, note)


def _timed(
    entrants: Sequence[Entrant],
    options: CompareOptions,
    missing: dict[str, str],
    progress: Progress,
) -> tuple[TimingRow, ...]:
    with tempfile.TemporaryDirectory() as folder:
        found = racers(entrants, Path(folder), missing, batches=options.batches)
        if not found:
            return ()
        return race(
            found,
            devices=options.devices,
            runtimes=options.runtimes,
            batches=options.batches,
            threads=options.threads,
            runs=options.runs,
            seed=options.seed,
            progress=progress,
        )


def _compared(
    one: Entrant, first: Entrant, found: Answered, missing: dict[str, str], *, on_images: bool
) -> ComparedModel:
    own = {**one.cost, "file_bytes": float(one.file_bytes)}
    base = {**first.cost, "file_bytes": float(first.file_bytes)}
    untimed = (missing[one.name],) if one.name in missing else ()
    return ComparedModel(
        name=one.name,
        file=one.file,
        kind=one.kind,
        architecture=one.architecture,
        input=one.takes.shape,
        class_count=found.class_count,
        cost=one.cost,
        file_bytes=one.file_bytes,
        ratios=None
        if one is first
        else {kind: _ratio(amount, base.get(kind)) for kind, amount in own.items()},
        scores=found.scores,
        agreement=found.agreement,
        preparation=preparation(one.spec) if on_images and one.spec is not None else None,
        missing=(*found.missing, *untimed),
        precision=one.precision,
    )


def _ratio(own: float | None, base: float | None) -> float | None:
    return own / base if own is not None and base else None
