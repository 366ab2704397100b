"""`prunecli analyze`: what a model can lose, what a data set is like."""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.options import AnalyzeOptions

from . import options as shared
from .outcome import Outcome
from .session import Session, start
from .values import load_options, names, usage_error

BUILT_IN_DATA = "digits"


def analyze(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            show_default=False,
            help="A checkpoint, a folder of images, or 'digits'. Without it: the checkpoint from "
            "piped stdin, else this folder's newest output.",
        ),
    ] = None,
    *,
    data: shared.Data = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", show_default=False, help="The checkpoint, where PATH is the data."
        ),
    ] = None,
    signal: shared.Signal = AnalyzeOptions.signal,
    signals: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            show_default=False,
            help="With --oracle: the signals to compare. Without: some well-known ones.",
        ),
    ] = None,
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle",
            help="With data: the loss change of removing each channel alone, and how signals rank "
            "the channels beside it.",
        ),
    ] = AnalyzeOptions.oracle,
    dead_threshold: shared.DeadThreshold = AnalyzeOptions.dead_threshold,
    aggregate: shared.Aggregate = AnalyzeOptions.aggregate,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity/--no-sensitivity",
            help="With data: loss and accuracy after cutting 25, 50, 75 % of each group alone.",
        ),
    ] = AnalyzeOptions.sensitivity,
    limit: shared.Limit = AnalyzeOptions.limit,
    seed: shared.Seed = AnalyzeOptions.seed,
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
    """Show what a model can lose, how hard a data set is, or both; write nothing.

    Examples:
    $ prunecli analyze resnet56.th
    $ prunecli analyze images/
    $ prunecli analyze resnet20.th --data images/ --oracle --signals l1,taylor,random
    $ prunecli analyze images/ --model resnet56.th
    """
    session = start(context, json=json, quiet=quiet, verbose=verbose)
    load = load_options(
        arch=arch,
        arch_arg=arch_arg,
        input_size=input_size,
        mean=mean,
        std=std,
        allow_pickle=allow_pickle,
    )
    checkpoint, images = _sort_out(session, path, model=model, data=data)
    if signals is not None and not oracle:
        raise usage_error("--signals are compared with the oracle", hint="add --oracle")
    choices = AnalyzeOptions(
        signal=signal,
        signals=() if signals is None else names("--signals", signals),
        oracle=oracle,
        aggregate=aggregate,
        seed=seed,
        limit=limit or AnalyzeOptions.limit,
        sensitivity=sensitivity,
        dead_threshold=dead_threshold,
    )
    from prunecli import pipeline

    with session.screen.working() as progress:
        report = pipeline.analyze(
            model=checkpoint, data=images, options=choices, load=load, progress=progress
        )
    return Outcome("analyze", report, warnings=report.warnings)


def _sort_out(
    session: Session, path: Path | None, *, model: Path | None, data: str | None
) -> tuple[Path | None, str | None]:
    """Return the model and the data that `path` and the two options name between them."""
    if path is None:
        needs_model = model is None and data is None
        return (session.checkpoint(None) if needs_model else model), data
    is_data = path.is_dir() or str(path) == BUILT_IN_DATA
    if (data if is_data else model) is not None:
        kind, flag = ("data", "--data") if is_data else ("a model", "--model")
        raise usage_error(
            f"{path} is {kind}, and {flag} names another", hint=f"leave one of the two out: {flag}"
        )
    if is_data:
        return model, str(path)
    return session.checkpoint(path), data
