"""`prunecli prune`: remove channels to meet a budget, and verify the result."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prunecli.budget import make_budget
from prunecli.options import BudgetOptions, LoadOptions, PruneOptions
from prunecli.options.declare import option
from prunecli.options.granularity import parse_pattern
from prunecli.options.methods import is_at_once
from prunecli.options.prune import ONE_CUT
from prunecli.options.shared import BUDGET, teacher_file
from prunecli.preflight.files import check_inputs
from prunecli.preflight.outputs import check_written
from prunecli.preflight.pruning import check_prune

from . import options as shared
from .following import after_pruning
from .outcome import Outcome
from .parsing import checkpoint_path, usage_error
from .session import Session
from .signature import command
from .sweep import sweeping


@dataclass(frozen=True)
class Cut:
    """What `prune` is asked for beside the choices of the library: the data and the output."""

    sweep: str | None = option(
        None,
        "Instead of one budget: loss and accuracy over many (flops=0.3:0.9:0.1), for one or more "
        "--signal and --allocation (l1,taylor). Needs --data. Writes no model.",
        metavar="COST=FIRST:LAST:STEP",
        panel=BUDGET,
    )
    data: str | None = shared.data(None)
    out: Path | None = shared.out(
        help="Output: .pt or .safetensors (default: <stem>.pruned.pt, in this folder). With "
        "--sweep: the table, .csv or .json.",
    )
    dry_run: bool = shared.output(
        False, "Show the plan and write nothing.", basic=True, needs=(ONE_CUT,)
    )


def _trains(found: Mapping[str, Any]) -> bool:
    """Tell whether a model is trained, which several processes do together."""
    options, cut = found["options"], found["cut"]
    trained = options.training.epochs is not None or not is_at_once(options.method)
    return trained and cut.sweep is None and not cut.dry_run


@partial(command, splits=_trains)
def prune(
    session: Session,
    model: shared.Model = None,
    *,
    budgets: BudgetOptions,
    cut: Cut,
    options: PruneOptions,
    pages: shared.Pages,
    load: LoadOptions,
) -> Outcome:
    """Remove channels to meet a budget, and verify that the result equals the masked original.

    Examples:
    $ prunecli prune resnet56.th --flops 0.5
    $ prunecli prune resnet56.th --flops 0.5 --data images/
    $ prunecli prune resnet56.th --flops 0.5 --data images/ --epochs 20
    $ prunecli prune resnet56.th --flops 0.5 --report cut.html
    $ prunecli prune model.pt --params 1.5M --signal taylor --data images/
    $ prunecli prune model.pt --flops 0.5 --method iterative --data images/
    $ prunecli prune model.pt --flops 0.5 --allocation inverse-importance --data images/
    $ prunecli prune model.pt --latency 0.7 --latency-table model.latency.json
    $ prunecli prune model.pt --flops 0.5 --signal auto --data images/
    $ prunecli prune model.pt --sweep flops=0.3:0.9:0.1 --signal l1,taylor --data images/
    $ prunecli prune model.pt --dead --data images/
    $ prunecli prune model.pt --sparsity 0.3 --exclude 'layer1.*' --dry-run
    $ prunecli prune model.pt --granularity weight --sparsity 0.9 --allocation erdos-renyi
    $ prunecli prune model.pt --granularity 2:4
    """
    if cut.sweep is not None:
        return sweeping(
            session,
            model,
            sweep=cut.sweep,
            options=options,
            load=load,
            data=cut.data,
            table=cut.out,
            pages=pages,
        )
    if "," in options.signal:
        raise usage_error(
            f"--signal {options.signal} names several signals, and one budget takes one",
            hint=f"take the best of them (--signal auto --candidates {options.signal}), or compare "
            "them over many budgets (--sweep)",
        )
    limits = dataclasses.asdict(budgets)
    by_pattern = parse_pattern(options.granularity) is not None and not any(limits.values())
    budget = None if by_pattern else make_budget(**limits, needed=not options.dead)
    path = session.checkpoint(model)
    output = checkpoint_path(cut.out, model=path, ending=".pruned.pt")
    teacher = teacher_file(options.training.teacher)
    check_prune(options, budget, images=cut.data is not None)
    check_inputs(teacher, data=cut.data)
    if not cut.dry_run:
        check_written(output, inputs=(path, teacher), overwrite=pages.overwrite)
    pages.check("prune", inputs=(path, cut.data, teacher))
    verbs = session.library()
    from prunecli.report import NO_GATES, missed_gate

    with session.screen.working() as progress:
        found = verbs.prune(
            path,
            output=output,
            budget=budget,
            options=options,
            load=load,
            data=cut.data,
            dry_run=cut.dry_run,
            **pages.arguments,
            command=session.command_line,
            progress=progress,
        )
    return Outcome(
        "prune",
        found,
        output=found.output,
        gate=missed_gate(NO_GATES, found),
        following=after_pruning(found, model=path, data=cut.data, load=load),
        warnings=found.warnings,
    )
