"""`prunecli export`: an ONNX file, compared with torch and timed against the dense network."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from prunecli.options import ExportOptions
from prunecli.report import Gates, missed_gate

from . import options as shared
from .following import after_export
from .outcome import Outcome
from .parsing import CHECKPOINTS, counts, load_options, names, output_path, usage_error
from .session import start

TIMING = "Timing"


class ExportCommand(TyperCommand):
    """A command whose `--onnx` may stand without a path: the default name is taken then."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with an empty path behind an `--onnx` that has none."""
        following = [*args, "--"][1:]
        completed = [
            f"{word}=" if word == "--onnx" and after.startswith("-") else word
            for word, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, completed)


def export(
    context: typer.Context,
    model: shared.Model = None,
    *,
    onnx: Annotated[
        str | None,
        typer.Option(
            "--onnx",
            "--out",
            "-o",
            metavar="[PATH]",
            show_default=False,
            help="Where to write; its ending names the format. Default: <stem>.onnx, here.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(min=7, metavar="N", help="ONNX opset (default: the exporter's).")
    ] = ExportOptions.opset,
    tolerance: Annotated[
        float, typer.Option(min=0, metavar="X", help="Largest relative error against torch.")
    ] = ExportOptions.tolerance,
    seed: shared.Seed = ExportOptions.seed,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="The dense checkpoint to be timed beside it.",
            rich_help_panel=TIMING,
        ),
    ] = None,
    benchmark: Annotated[
        bool,
        typer.Option("--benchmark/--no-benchmark", help="Time the result.", rich_help_panel=TIMING),
    ] = ExportOptions.benchmark,
    batch: Annotated[
        str, typer.Option(metavar="N,N", help="Batch sizes to time.", rich_help_panel=TIMING)
    ] = ",".join(map(str, ExportOptions.batches)),
    device: Annotated[
        str,
        typer.Option(metavar="NAME,NAME", help="cpu, cuda, or both.", rich_help_panel=TIMING),
    ] = ",".join(ExportOptions.devices),
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="CPU threads (default: one per physical core).",
            rich_help_panel=TIMING,
        ),
    ] = ExportOptions.threads,
    runs: Annotated[
        int, typer.Option(min=2, metavar="N", help="Timed runs.", rich_help_panel=TIMING)
    ] = ExportOptions.runs,
    min_speedup: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="FACTOR",
            help="Lowest measured speed-up to accept, on every device and batch size.",
            rich_help_panel=shared.GATES,
        ),
    ] = None,
    arch: shared.Arch = None,
    arch_arg: shared.ArchArg = None,
    input_size: shared.InputSize = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    allow_pickle: shared.AllowPickle = False,
    report: shared.Report = None,
    plots: shared.Plots = None,
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> Outcome:
    """Write an ONNX file, check it against torch, and time it beside the dense network.

    Examples:
    $ prunecli export resnet56.pruned.pt --onnx
    $ prunecli export slim.pt --onnx --against dense.pt --min-speedup 1.3
    $ prunecli export slim.pt --onnx --against dense.pt --report run.html
    $ prunecli export model.pruned.pt --device cpu,cuda --batch 1,32
    """
    session = start(context, json=json, quiet=quiet, verbose=verbose)
    if onnx and onnx.endswith(CHECKPOINTS):
        raise usage_error(
            f"--onnx {onnx} is not the name of an ONNX file",
            hint="the path behind --onnx is the output and ends in .onnx; the model comes first",
        )
    if min_speedup is not None and not benchmark:
        raise usage_error("--min-speedup needs the timing", hint="leave --no-benchmark out")
    load = load_options(
        arch=arch,
        arch_arg=arch_arg,
        input_size=input_size,
        mean=mean,
        std=std,
        allow_pickle=allow_pickle,
    )
    choices = ExportOptions(
        opset=opset,
        devices=names("--device", device),
        batches=counts("--batch", batch),
        threads=threads,
        runs=runs,
        benchmark=benchmark,
        tolerance=tolerance,
        seed=seed,
    )
    gates = Gates(min_speedup=min_speedup)
    path = session.checkpoint(model)
    from prunecli import verbs

    with session.screen.working() as progress:
        found = verbs.export(
            path,
            output=output_path(Path(onnx) if onnx else None, model=path, ending=".onnx"),
            against=against,
            options=choices,
            load=load,
            page=report,
            plots=plots,
            overwrite=overwrite,
            gates=gates,
            command=session.command_line,
            progress=progress,
        )
    gate = missed_gate(gates, found)
    return Outcome(
        "export",
        found,
        output=found.output,
        gate=gate,
        following=after_export(found),
        warnings=found.warnings,
    )
