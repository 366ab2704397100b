"""`prunecli export`: an ONNX file, compared with PyTorch and timed against the original model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunecli.options import ExportOptions, LoadOptions
from prunecli.options.export import CONVERTED, TIMED
from prunecli.options.shared import TIMING
from prunecli.preflight.exporting import check_format, default_ending
from prunecli.preflight.files import check_inputs
from prunecli.preflight.outputs import check_written, room_for

from . import options as shared
from .following import after_export
from .outcome import Outcome
from .parsing import CHECKPOINTS, output_path, usage_error
from .session import Session
from .signature import VerbCommand, command


class ExportCommand(VerbCommand):
    """A command whose `--onnx` may stand without a path: the default name is taken then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with an empty path behind an `--onnx` that has none."""
        following = [*args, "--"][1:]
        completed = [
            f"{word}=" if word == "--onnx" and after.startswith("-") else word
            for word, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, completed)


@dataclass(frozen=True)
class File:
    """Where `export` writes, and what it compares with."""

    onnx: str | None = shared.out(
        help="Output file. Its suffix names the format (default: <stem>.onnx, in this folder).",
        metavar="[PATH]",
        flags="--onnx --out -o",
    )
    against: Path | None = shared.model(
        help="Original checkpoint to time beside the exported model.",
        panel=TIMING,
        basic=True,
        needs=(TIMED,),
    )
    data: str | None = shared.data(None, needs=(CONVERTED,))
    min_speedup: float | None = shared.gate(
        None,
        "Minimum measured speed-up on every device and batch size.",
        metavar="FACTOR",
        minimum=0,
        basic=True,
        needs=(TIMED,),
    )


@command
def export(
    session: Session,
    model: shared.Model = None,
    *,
    file: File,
    options: ExportOptions,
    pages: shared.Pages,
    load: LoadOptions,
) -> Outcome:
    """Export to ONNX, verify the outputs against PyTorch, and benchmark against the original.

    Examples:
    $ prunecli export resnet56.pruned.pt --onnx
    $ prunecli export slim.pt --onnx --against dense.pt --min-speedup 1.3
    $ prunecli export slim.pt --onnx --dynamic-size
    $ prunecli export slim.pt --onnx --against dense.pt --report run.html
    $ prunecli export slim.pt --int8 --data images/ --max-drop 1%
    $ prunecli export model.pruned.pt --device cpu,cuda --batch 1,32
    """
    onnx = file.onnx
    if onnx and onnx.endswith(CHECKPOINTS):
        raise usage_error(
            f"--onnx {onnx} is not the name of an ONNX file",
            hint="the path behind --onnx is the output and ends in .onnx; the model comes first",
        )
    path = session.checkpoint(model)
    ending = default_ending(options.precision)
    output = output_path(Path(onnx) if onnx else None, model=path, ending=ending)
    check_format(output)
    check_inputs(file.against, data=file.data)
    needed = room_for(path)
    check_written(output, inputs=(path,), overwrite=pages.overwrite, needed=needed, flag="--onnx")
    pages.check("export", inputs=(path, file.against))
    verbs = session.library()
    from prunecli.report import Gates, missed_gate

    gates = Gates(min_speedup=file.min_speedup, max_drop=options.max_drop)
    with session.screen.working() as progress:
        found = verbs.export(
            path,
            output=output,
            against=file.against,
            data=file.data,
            options=options,
            load=load,
            **pages.arguments,
            gates=gates,
            command=session.command_line,
            progress=progress,
        )
    return Outcome(
        "export",
        found,
        output=found.output,
        gate=missed_gate(gates, found),
        following=after_export(found, against=file.against),
        warnings=found.warnings,
    )
