"""From wishes to one model, on files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli import verbs
from prunecli.options import CompressOptions, LoadOptions, WishOptions
from prunecli.options.declare import assembled, takes
from prunecli.progress import Progress, silent

if TYPE_CHECKING:
    from prunecli.report import CompressReport


@takes(CompressOptions)
def compress(
    model: str | Path,
    data: str | Path | None = None,
    *,
    speedup: float | None = None,
    max_drop: float | None = None,
    flops: float | str | None = None,
    params: float | str | None = None,
    size: float | str | None = None,
    latency: float | str | None = None,
    output: str | Path | None = None,
    onnx: str | Path | None = None,
    options: CompressOptions | None = None,
    load: LoadOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    **choices: Any,
) -> CompressReport:
    """Return what came of pruning, training, exporting and timing the model in a file.

    `speedup=2` is at least twice as fast, `max_drop=0.01` loses at most one point of accuracy,
    `size="4MB"` and the others are ceilings (`report.met` says which wishes are met). The model
    goes to `output` (default: `<stem>.compressed.pt` in the current folder), an ONNX file to
    `onnx`. A search that was stopped goes on with `resume`. Raises `InputError` for wishes that are
    none, and what pruning, training and exporting raise.
    """
    amounts = {"flops": flops, "params": params, "size": size, "latency": latency}
    typed = {name: None if value is None else str(value) for name, value in amounts.items()}
    return verbs.compress(
        Path(model),
        wishes=WishOptions(speedup=speedup, max_drop=max_drop, **typed),
        data=None if data is None else str(data),
        output=None if output is None else Path(output),
        onnx=None if onnx is None else Path(onnx),
        options=assembled(CompressOptions, choices, options),
        load=load,
        resume=resume,
        overwrite=overwrite,
        command="prunecli.compress(...)",
        progress=progress,
    )
