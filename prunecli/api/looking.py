"""What model files are, and how they compare: info, compare and bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.options import BenchOptions, CompareOptions, InfoOptions, LoadOptions
from prunecli.options.declare import chosen, takes
from prunecli.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.report import BenchReport, CompareReport, InfoReport


@takes(InfoOptions)
def info(
    path: str | Path,
    *,
    options: InfoOptions | None = None,
    load: LoadOptions | None = None,
    **choices: Any,
) -> InfoReport:
    """Return what a model file is: format, architecture, classes, input, costs, history, digest.

    Nothing in it is run. Keywords change `options`.
    """
    from prunecli.verbs.info import info as info_of_file

    return info_of_file(Path(path), options=chosen(InfoOptions, options, choices), load=load)


@takes(CompareOptions)
def compare(
    paths: Sequence[str | Path],
    *,
    data: str | Path | None = None,
    options: CompareOptions | None = None,
    load: LoadOptions | None = None,
    progress: Progress = silent,
    **choices: Any,
) -> CompareReport:
    """Return model files side by side: costs, size, time, accuracy, agreement with the first.

    `data` names images. Keywords change `options`.
    """
    from prunecli.verbs.compare import compare as compare_files

    return compare_files(
        [Path(path) for path in paths],
        data=None if data is None else str(data),
        options=chosen(CompareOptions, options, choices, data=data),
        load=load,
        progress=progress,
    )


@takes(BenchOptions)
def bench(
    paths: Sequence[str | Path],
    *,
    options: BenchOptions | None = None,
    load: LoadOptions | None = None,
    progress: Progress = silent,
    **choices: Any,
) -> BenchReport:
    """Return the times of model files as ONNX, in turns, each beside that of the first.

    Keywords change `options`.
    """
    from prunecli.verbs.bench import bench as bench_files

    return bench_files(
        [Path(path) for path in paths],
        options=chosen(BenchOptions, options, choices),
        load=load,
        progress=progress,
    )
