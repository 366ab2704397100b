"""`prunecli prune`: cut channels to a budget, and prove the cut."""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.options import IterativeOptions, LatencyOptions, PruneOptions
from prunecli.report import NO_GATES, missed_gate

from . import options as shared
from .following import after_pruning
from .outcome import Outcome
from .parsing import checkpoint_path, is_typed, load_options, names, usage_error
from .session import start
from .sweep import sweeping

BUDGET = "Budget (at least one, or --dead)"
ITERATIVE_SIGNAL = "fisher"
"""What `--method iterative` takes where nobody says: loss per cost, as Theis et al. remove."""

ITERATIVE_OPTIONS = (
    "updates", "remove_per_step", "lr", "optimizer", "batch_size", "amp", "schedule", "ema",
    "teacher", "resume",
)  # fmt: skip

LATENCY = "Latency (ONNX Runtime on this CPU)"


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
            metavar="REMOVE",
            help="Share of the channels to remove; of the weights with --granularity weight.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    granularity: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What goes: channel, weight (zeroed one by one), or 2:4 (2 of every 4 stay).",
            rich_help_panel=shared.CHOOSING,
            autocompletion=lambda: ["channel", "weight", "2:4"],
        ),
    ] = PruneOptions.granularity,
    latency: Annotated[
        str | None,
        typer.Option(
            metavar="KEEP",
            help="Latency to keep on this CPU in ONNX Runtime: 0.7 or 5ms. Measures for a minute.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="COST=FIRST:LAST:STEP",
            show_default=False,
            help="Instead of one budget: loss and accuracy over many (flops=0.3:0.9:0.1), for one "
            "or more signals (--signal a,b) and allocations. Needs --data; writes no network.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    signal: Annotated[
        str,
        typer.Option(
            "--signal",
            metavar="NAME",
            help="What a channel is worth; see 'prunecli methods'. 'auto' tries several at the "
            "budget and takes the one with the least loss on held-out images.",
            rich_help_panel=shared.CHOOSING,
            autocompletion=lambda: [*shared.SIGNALS, "auto"],
        ),
    ] = PruneOptions.signal,
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            show_default=False,
            help="With --signal auto: the signals to try; random is always tried beside them. "
            "Without: some well-known ones.",
            rich_help_panel=shared.CHOOSING,
        ),
    ] = None,
    dead: Annotated[
        bool,
        typer.Option(
            "--dead",
            help="Remove dead channels first, at no cost: constant on the images of --data, or by "
            "their weights alone. Enough without a budget.",
            rich_help_panel=BUDGET,
        ),
    ] = PruneOptions.dead,
    dead_threshold: shared.DeadThreshold = PruneOptions.dead_threshold,
    allocation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How the cut is spread over the groups: uniform, greedy, knapsack, ...; see "
            "'prunecli methods allocation'.",
            rich_help_panel=shared.CHOOSING,
            autocompletion=lambda: list(shared.ALLOCATIONS),
        ),
    ] = PruneOptions.allocation,
    importance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="With an allocation by importance: probe, sensitivity or energy. Default: probe "
            "with --data, else energy.",
            rich_help_panel=shared.CHOOSING,
            autocompletion=lambda: list(shared.IMPORTANCES),
        ),
    ] = PruneOptions.importance,
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
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="one-shot, or iterative: a few channels at a time, training between.",
            rich_help_panel=shared.ITERATIVE,
            autocompletion=lambda: list(shared.METHODS),
        ),
    ] = PruneOptions.method,
    updates: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Mini-batches between two removals.",
            rich_help_panel=shared.ITERATIVE,
        ),
    ] = IterativeOptions.updates,
    remove_per_step: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Channels that go at a time (default: as many as make about 30 removals).",
            rich_help_panel=shared.ITERATIVE,
        ),
    ] = IterativeOptions.remove_per_step,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Learning rate (default: half of the optimiser's own).",
            rich_help_panel=shared.ITERATIVE,
        ),
    ] = IterativeOptions.lr,
    optimizer: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="See 'prunecli methods'.", rich_help_panel=shared.ITERATIVE
        ),
    ] = IterativeOptions.optimizer,
    batch_size: Annotated[
        int,
        typer.Option(
            min=2, metavar="N", help="Images per update.", rich_help_panel=shared.ITERATIVE
        ),
    ] = IterativeOptions.batch_size,
    amp: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Mixed precision: auto, no, fp16 or bf16.",
            rich_help_panel=shared.ITERATIVE,
        ),
    ] = IterativeOptions.amp,
    schedule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Learning rate over the updates; see 'prunecli methods'.",
            rich_help_panel=shared.ITERATIVE,
        ),
    ] = IterativeOptions.schedule,
    ema: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Decay of the averaged weights; 0: none.",
            rich_help_panel=shared.ITERATIVE,
        ),
    ] = IterativeOptions.ema,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Learn from this checkpoint meanwhile: the dense one.",
            rich_help_panel=shared.ITERATIVE,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where a stopped run ended.", rich_help_panel=shared.ITERATIVE
        ),
    ] = False,
    latency_table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Measured operators: read, or measured and written there (JSON).",
            rich_help_panel=LATENCY,
        ),
    ] = None,
    latency_batch: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Images at a time.", rich_help_panel=LATENCY),
    ] = LatencyOptions.batch,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads that run the network (default: one per physical core).",
            rich_help_panel=LATENCY,
        ),
    ] = LatencyOptions.threads,
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
            help="Where to write: .pt or .safetensors. Default: <stem>.pruned.pt, in this folder. "
            "With --sweep: the table, .csv or .json.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    report: shared.Report = None,
    plots: shared.Plots = None,
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
    $ prunecli prune resnet56.th --flops 0.5 --report cut.html
    $ prunecli prune model.pt --params 1.5M --signal taylor --data images/
    $ prunecli prune model.pt --flops 0.5 --signal reconstruction --repair lstsq --data images/
    $ prunecli prune model.pt --flops 0.5 --allocation inverse-importance --data images/
    $ prunecli prune model.pt --flops 0.5 --method iterative --data images/
    $ prunecli prune model.pt --latency 0.7 --latency-table model.latency.json
    $ prunecli prune model.pt --flops 0.5 --signal auto --data images/
    $ prunecli prune model.pt --sweep flops=0.3:0.9:0.1 --signal l1,taylor --data images/
    $ prunecli prune model.pt --dead --data images/
    $ prunecli prune model.pt --sparsity 0.3 --exclude 'layer1.*' --dry-run
    $ prunecli prune model.pt --granularity weight --sparsity 0.9 --allocation erdos-renyi
    $ prunecli prune model.pt --granularity 2:4
    """
    from prunecli.budget import make_budget
    from prunecli.sparse.granularity import parse_pattern

    session = start(context, json=json, quiet=quiet, verbose=verbose)
    load = load_options(
        arch=arch,
        arch_arg=arch_arg,
        input_size=input_size,
        mean=mean,
        std=std,
        allow_pickle=allow_pickle,
    )
    iterative = method == "iterative"
    if not iterative:
        _refuse_iterative(context)
    choices = PruneOptions(
        signal=ITERATIVE_SIGNAL if iterative and not _is_said(context, "signal") else signal,
        allocation=allocation,
        aggregate=aggregate,
        align=align,
        min_width=min_width,
        exclude=tuple(exclude or ()),
        only=tuple(only or ()),
        seed=seed,
        limit=limit or PruneOptions.limit,
        repair=tuple(name.strip() for name in repair.split(",")) if repair else (),
        granularity=granularity,
        importance=importance,
        method=method,
        iterative=IterativeOptions(
            remove_per_step=remove_per_step,
            updates=updates,
            lr=lr,
            optimizer=optimizer,
            batch_size=batch_size,
            amp=amp,
            schedule=schedule,
            ema=ema,
            teacher=teacher,
            limit=limit if iterative and _is_said(context, "limit") else None,
            resume=resume,
        ),
        latency=LatencyOptions(table=latency_table, batch=latency_batch, threads=threads),
        candidates=() if candidates is None else names("--candidates", candidates),
        dead=dead,
        dead_threshold=dead_threshold,
    )
    if sweep is not None:
        return sweeping(
            context,
            session,
            model,
            sweep=sweep,
            options=choices,
            load=load,
            data=data,
            table=out,
            report=report,
            plots=plots,
            overwrite=overwrite,
        )
    if "," in signal:
        raise usage_error(
            f"--signal {signal} names several signals for one cut",
            hint=f"take the best of them (--signal auto --candidates {signal}), or compare them "
            "over many budgets (--sweep)",
        )
    limits = {"flops": flops, "params": params, "activations": activations, "bytes": bytes,
              "sparsity": sparsity, "latency": latency}  # fmt: skip
    by_pattern = parse_pattern(granularity) is not None and not any(limits.values())
    budget = None if by_pattern else make_budget(**limits, needed=not dead)
    path = session.checkpoint(model)
    from prunecli import verbs

    with session.screen.working() as progress:
        found = verbs.prune(
            path,
            output=checkpoint_path(out, model=path, ending=".pruned.pt"),
            budget=budget,
            options=choices,
            load=load,
            data=data,
            dry_run=dry_run,
            page=report,
            plots=plots,
            overwrite=overwrite,
            command=session.command_line,
            progress=progress,
        )
    return Outcome(
        "prune",
        found,
        output=found.output,
        gate=missed_gate(NO_GATES, found),
        following=after_pruning(found, model=path, data=data),
        warnings=found.warnings,
    )


def _is_said(context: typer.Context, name: str) -> bool:
    """Tell whether a flag, a variable or the settings say something about an option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _refuse_iterative(context: typer.Context) -> None:
    """Raise the usage error of an option that only `--method iterative` follows."""
    for name in ITERATIVE_OPTIONS:
        if is_typed(context, name):
            flag = f"--{name.replace('_', '-')}"
            raise usage_error(
                f"{flag} says how --method iterative goes", hint="add --method iterative"
            )
