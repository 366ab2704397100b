"""The command that a sweep suggests: what was typed, with one cut in place of the sweep."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.preflight.pruning import BY_IMPORTANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.report import SweepReport, Trial

SWITCHES = ("--overwrite", "--json", "-q", "--quiet", "--verbose")
REPLACED = (
    "--sweep", "--plots", "--report", "--out", "-o", "--signal", "--allocation", "--candidates",
    "--importance",
)  # fmt: skip


def next_command(
    command: str, report: SweepReport, *, model: Path, importance: str | None = None
) -> str:
    """Return `command`, which made the sweep, for its suggested cut; empty without either."""
    if report.suggested is None or not command:
        return ""
    program, *words = shlex.split(command)
    kept = _without(words)
    # The model may have come from a pipe, or from this folder's last run.
    if not any(Path(word) == model for word in kept):
        kept.insert(kept.index("prune") + 1 if "prune" in kept else 0, str(model))
    named = ["--importance", importance] if importance and _uses_importance(report) else []
    return shlex.join((program, *kept, *_cut(report.suggested), *named))


def _uses_importance(report: SweepReport) -> bool:
    return report.suggested is not None and report.suggested.allocation in BY_IMPORTANCE


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


def _cut(trial: Trial) -> list[str]:
    ((kind, limit),) = trial.budget.items()
    share = limit["fraction"]
    budget = (
        ["--sparsity", f"{1 - share:.6g}"] if kind == "channels" else [f"--{kind}", f"{share:g}"]
    )
    return [*budget, "--signal", trial.signal, "--allocation", trial.allocation]
