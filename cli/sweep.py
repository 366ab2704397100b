"""`prunecli prune --sweep`: loss and accuracy over many budgets, and the command for one."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.budget import parse_sweep
from prunecli.options import LoadOptions, PruneOptions

from .options import Pages
from .outcome import Outcome
from .parsing import names
from .session import Session

if TYPE_CHECKING:
    from prunecli.report import SweepReport, Trial


SWITCHES = ("--overwrite", "--json", "-q", "--quiet", "--verbose")
REPLACED = (
    "--sweep", "--plots", "--report", "--out", "-o", "--signal", "--allocation", "--candidates",
    "--importance",
)  # fmt: skip


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
    from prunecli import verbs

    def suggest(found: "SweepReport") -> str:
        return next_command(session.words, found, model=path, importance=options.importance)

    with session.screen.working() as progress:
        found = verbs.sweep(
            path,
            sweep=budgets,
            signals=names("--signal", options.signal),
            allocations=names("--allocation", options.allocation),
            options=dataclasses.replace(
                options, signal=PruneOptions().signal, allocation=PruneOptions.allocation
            ),
            load=load,
            data=data,
            table=table,
            suggest=suggest,
            **pages.arguments,
            command=session.command_line,
            progress=progress,
        )
    brief = None if found.table is None else str(found.table)
    return Outcome("prune", found, brief=brief, warnings=found.warnings)


def next_command(
    words: Sequence[str], report: "SweepReport", *, model: Path, importance: str | None = None
) -> str:
    """Return what was typed with the suggested cut in place of the sweep; empty without one."""
    if report.suggested is None:
        return ""
    kept = _without(words)
    # The model may have come from a pipe, or from this folder's last run.
    if not any(Path(word) == model for word in kept):
        kept.insert(kept.index("prune") + 1 if "prune" in kept else 0, str(model))
    named = ["--importance", importance] if importance and _uses_importance(report) else []
    return shlex.join(("prunecli", *kept, *_cut(report.suggested), *named))


def _uses_importance(report: "SweepReport") -> bool:
    return report.suggested is not None and report.suggested.allocation.endswith("-importance")


def _without(words: Sequence[str]) -> list[str]:
    """Return the words that belong to one cut as well as to a sweep."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in REPLACED:
            skip = True
        elif word not in SWITCHES and word.partition("=")[0] not in REPLACED:
            kept.append(word)
    return kept


def _cut(trial: "Trial") -> list[str]:
    ((kind, limit),) = trial.budget.items()
    share = limit["fraction"]
    budget = (
        ["--sparsity", f"{1 - share:.6g}"] if kind == "channels" else [f"--{kind}", f"{share:g}"]
    )
    return [*budget, "--signal", trial.signal, "--allocation", trial.allocation]
