"""`prunecli prune`: cut channels to a budget, and prove the cut."""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.options import PruneOptions

from . import options as shared
from .outcome import Outcome
from .session import start
from .values import checkpoint_path, load_options

BUDGET = "Budget (at least one)"


def prune(
    context: typer.Context,
    model: shared.Model = None,
    *,
    flops: Annotated[
        str | None,
        typer.Option(
            metavar="KEEP", help="FLOPs to keep: 0.5, 50%, or 150M.", rich_help_panel=BUDGET
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(metavar="KEEP", help="Parameters to keep.", rich_help_panel=BUDGET),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(metavar="KEEP", help="Activations to keep.", rich_help_panel=BUDGET),
    ] = None,
    bytes: Annotated[  # noqa: A002 - the option is called --bytes
        str | None,
        typer.Option(metavar="KEEP", help="Bytes to keep: 0.5 or 4MB.", rich_help_panel=BUDGET),
    ] = None,
    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="REMOVE", help="Share of the channels to remove.", rich_help_panel=BUDGET
        ),
    ] = None,
    signal: shared.Signal = PruneOptions.signal,
    allocation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How the cut is spread over the groups; see 'prunecli methods'.",
            rich_help_panel=shared.CHOOSING,
            autocompletion=lambda: list(shared.ALLOCATIONS),
        ),
    ] = PruneOptions.allocation,
    aggregate: shared.Aggregate = PruneOptions.aggregate,
    align: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Kept widths are multiples of N (default: chosen so that the result is fast).",
            rich_help_panel=shared.CHOOSING,
        ),
    ] = PruneOptions.align,
    min_width: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Channels that a group keeps.", rich_help_panel=shared.CHOOSING
        ),
    ] = PruneOptions.min_width,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            show_default=False,
            help="Leave these layers as they are ('layer3.*'); repeatable.",
            rich_help_panel=shared.CHOOSING,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            show_default=False,
            help="Cut these layers alone; repeatable.",
            rich_help_panel=shared.CHOOSING,
        ),
    ] = None,
    repair: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default=False,
            help="Repair the cut network on images, in this order: bn,bias,lstsq. Needs --data.",
        ),
    ] = None,
    data: shared.Data = None,
    limit: shared.Limit = PruneOptions.limit,
    seed: shared.Seed = PruneOptions.seed,
    arch: shared.Arch = None,
    arch_arg: shared.ArchArg = None,
    input_size: shared.InputSize = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    allow_pickle: shared.AllowPickle = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where to write: .pt or .safetensors. Default: <stem>.pruned.pt, in this folder.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    overwrite: shared.Overwrite = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the plan, write nothing.", rich_help_panel=shared.OUTPUT
        ),
    ] = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> Outcome:
    """Cut channels until the model keeps a budget, and prove that the cut equals a mask.

    Examples:
    $ prunecli prune resnet56.th --flops 0.5
    $ prunecli prune model.pt --params 1.5M --signal taylor --data images/
    $ prunecli prune model.pt --flops 0.5 --signal reconstruction --repair lstsq --data images/
    $ prunecli prune model.pt --sparsity 0.3 --exclude 'layer1.*' --dry-run
    """
    from prunecli.budget import make_budget

    session = start(context, json=json, quiet=quiet, verbose=verbose)
    budget = make_budget(
        flops=flops, params=params, activations=activations, bytes=bytes, sparsity=sparsity
    )
    load = load_options(
        arch=arch,
        arch_arg=arch_arg,
        input_size=input_size,
        mean=mean,
        std=std,
        allow_pickle=allow_pickle,
    )
    choices = PruneOptions(
        signal=signal,
        allocation=allocation,
        aggregate=aggregate,
        align=align,
        min_width=min_width,
        exclude=tuple(exclude or ()),
        only=tuple(only or ()),
        seed=seed,
        limit=limit or PruneOptions.limit,
        repair=tuple(name.strip() for name in repair.split(",")) if repair else (),
    )
    path = session.checkpoint(model)
    from prunecli import pipeline

    with session.screen.working() as progress:
        report = pipeline.prune(
            path,
            output=checkpoint_path(out, model=path, ending=".pruned.pt"),
            budget=budget,
            options=choices,
            load=load,
            data=data,
            dry_run=dry_run,
            overwrite=overwrite,
            command=session.command_line,
            progress=progress,
        )
    return Outcome("prune", report, output=report.output, warnings=report.warnings)
