"""`prunecli prune --sweep`: loss and accuracy over many budgets, and the command for one."""

import dataclasses
from pathlib import Path

from prunecli.budget import parse_sweep
from prunecli.options import LoadOptions, PruneOptions
from prunecli.preflight.files import check_inputs
from prunecli.preflight.outputs import check_written
from prunecli.preflight.pruning import check_table, no_sweep_images

from .options import Pages
from .outcome import Outcome
from .parsing import names
from .session import Session


def sweeping(
    session: Session,
    model: Path | None,
    *,
    sweep: str,
    options: PruneOptions,
    load: LoadOptions,
    data: str | None,
    table: Path | None,
    pages: Pages,
) -> Outcome:
    """Run a sweep over the budgets in `sweep`."""
    budgets = parse_sweep(sweep)
    path = session.checkpoint(model)
    if data is None:
        raise no_sweep_images()
    check_inputs(data=data)
    if table is not None:
        check_table(table)
        check_written(table, inputs=(path,), overwrite=pages.overwrite)
    pages.check("sweep", inputs=(path, data, table))
    verbs = session.library()

    with session.screen.working() as progress:
        found = verbs.sweep(
            path,
            sweep=budgets,
            signals=names("--signal", options.signal),
            allocations=names("--allocation", options.allocation),
            options=dataclasses.replace(
                options, signal=PruneOptions().signal, allocation=PruneOptions().allocation
            ),
            load=load,
            data=data,
            table=table,
            **pages.arguments,
            command=session.command_line,
            progress=progress,
        )
    brief = None if found.table is None else str(found.table)
    return Outcome("prune", found, brief=brief, warnings=found.warnings)
