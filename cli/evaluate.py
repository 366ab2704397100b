"""`prunecli evaluate`: accuracy of a checkpoint or an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.report import Gates, missed_gate

from . import options as shared
from .outcome import Outcome
from .parsing import load_options, share, usage_error
from .session import start


def evaluate(
    context: typer.Context,
    model: shared.Model = None,
    *,
    data: shared.NeededData,
    split: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="auto (the test images, else the held-out ones), train, held_out or test.",
            autocompletion=lambda: list(shared.SPLITS),
        ),
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images at a time.")] = 256,
    limit: shared.Limit = None,
    min_accuracy: shared.MinAccuracy = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Highest loss of accuracy against --against: 0.01 or 1%.",
            rich_help_panel=shared.GATES,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="The model to compare with, for --max-drop.",
            rich_help_panel=shared.GATES,
        ),
    ] = None,
    arch: shared.Arch = None,
    arch_arg: shared.ArchArg = None,
    input_size: shared.InputSize = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    allow_pickle: shared.AllowPickle = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> Outcome:
    """Measure accuracy, top-5 and loss; with -q, print the accuracy alone.

    Examples:
    $ prunecli evaluate resnet56.pruned.finetuned.pt --data images/
    $ prunecli evaluate model.onnx --data images/ --min-accuracy 0.9
    $ prunecli evaluate slim.pt --data images/ --against dense.pt --max-drop 1%
    """
    session = start(context, json=json, quiet=quiet, verbose=verbose)
    gates = Gates(share("--min-accuracy", min_accuracy), share("--max-drop", max_drop))
    if (gates.max_drop is None) != (against is None):
        raise usage_error(
            "--max-drop and --against belong together", hint="give both: --against dense.pt"
        )
    load = load_options(
        arch=arch,
        arch_arg=arch_arg,
        input_size=input_size,
        mean=mean,
        std=std,
        allow_pickle=allow_pickle,
    )
    path = session.checkpoint(model, exported=True)
    from prunecli import verbs

    with session.screen.working() as progress:
        report, *reference = [
            verbs.evaluate(
                each,
                data=data,
                split=split,
                batch_size=batch_size,
                limit=limit,
                load=load,
                progress=progress,
            )
            for each in (path, against)
            if each is not None
        ]
    compared = reference[0].accuracy if reference else None
    gate = missed_gate(gates, report, reference=compared)
    brief = f"{report.accuracy:.6g}"
    return Outcome("evaluate", report, brief=brief, gate=gate, warnings=report.warnings)
