"""`prunecli prune --sweep`: loss and accuracy over many budgets, and the command for one."""

import dataclasses
from pathlib import Path

import typer

from prunecli.budget import parse_sweep
from prunecli.options import LoadOptions, PruneOptions

from .outcome import Outcome
from .parsing import is_typed, names, usage_error
from .session import Session

BUDGETS = ("flops", "params", "activations", "bytes", "sparsity", "latency")


def sweeping(
    context: typer.Context,
    session: Session,
    model: Path | None,
    *,
    sweep: str,
    options: PruneOptions,
    load: LoadOptions,
    data: str | None,
    table: Path | None,
    report: Path | None,
    plots: Path | None,
    overwrite: bool,
) -> Outcome:
    """Run a sweep; what was typed for one cut alone is a usage error."""
    of_one_cut = (
        *BUDGETS, "dead", "dead_threshold", "latency_table", "latency_batch", "threads", "method",
        "granularity", "dry_run",
    )  # fmt: skip
    typed = [name for name in of_one_cut if is_typed(context, name)]
    if typed:
        flag = typed[0].replace("_", "-")
        raise usage_error(
            f"--sweep takes its own budgets and writes no network: --{flag} has no place beside it",
            hint=f"leave --{flag} out",
        )
    budgets = parse_sweep(sweep)
    path = session.checkpoint(model)
    from prunecli import verbs

    with session.screen.working() as progress:
        found = verbs.sweep(
            path,
            sweep=budgets,
            signals=names("--signal", options.signal),
            allocations=names("--allocation", options.allocation),
            options=dataclasses.replace(
                options, signal=PruneOptions.signal, allocation=PruneOptions.allocation
            ),
            load=load,
            data=data,
            table=table,
            page=report,
            plots=plots,
            overwrite=overwrite,
            command=session.command_line,
            progress=progress,
        )
    brief = None if found.table is None else str(found.table)
    return Outcome("prune", found, brief=brief, warnings=found.warnings)
