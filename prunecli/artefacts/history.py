"""The history of a model, kept in its file: what every verb did, and what came of it.

Files are not trusted, and older versions wrote less: what cannot be read is left out.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from itertools import dropwhile
from typing import TYPE_CHECKING, Any

from prunecli.cost.kinds import in_order
from prunecli.report import AccuracyChange, Cost, CutCost, RunStep, Verified, to_json
from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prunecli.checkpoint import Checkpoint
    from prunecli.report import PruneReport

VERBS = ("prune", "finetune", "export")

LONGEST = 2000
"""Characters of a text from a file; no command that people type is longer."""

MOST = 200
"""Steps that are read: nobody cuts one network more often."""


def step_to_json(step: RunStep) -> dict[str, Any]:
    """Return what a file keeps of a step, without what is not known."""
    return {name: value for name, value in to_json(step).items() if value is not None}


def cut_step(report: PruneReport, *, command: str, source: str) -> RunStep:
    """Return what a file keeps of a cut."""
    budget = report.plan.get("budget")
    return RunStep(
        verb="prune",
        command=command,
        input=source,
        cost=report.cost,
        budget=budget if report.sparsity is None else None,
        chosen=", ".join((report.signal, report.allocation, *_repairs(report), *_without(report))),
        sparsity=None if report.sparsity is None else report.sparsity.sparsity,
        verified=report.verified,
        accuracy=_measured(report),
    )


def _repairs(report: PruneReport) -> tuple[str, ...]:
    """Return the repairs that were done after a cut."""
    steps = () if report.repair is None else report.repair.steps
    return tuple(step.name for step in steps if step.layers or step.skipped)


def _without(report: PruneReport) -> tuple[str, ...]:
    """Return how many residual blocks were deleted, if any."""
    blocks = () if report.blocks is None else report.blocks.deleted
    return (f"without {counted(len(blocks), 'block')}",) if blocks else ()


def _measured(report: PruneReport) -> AccuracyChange | None:
    """Return the accuracy before and after a cut, where anything on the way has measured it."""
    trained = report.iterative or report.learning
    if trained is not None:
        return trained.accuracy
    if report.repair is not None:
        steps = report.repair.steps
        return AccuracyChange(steps[0].accuracy, steps[-1].accuracy, report.repair.measured)
    return None


def history_of(checkpoint: Checkpoint) -> tuple[RunStep, ...]:
    """Return the steps that a checkpoint has gone, the oldest first; none for one of other tools.

    It starts with the first step that is known: what was before made the dense network. Where a
    file of an older version tells nothing of its cut or its training, its plan and its accuracy do.
    """
    told = checkpoint.metadata.get("history")
    listed = told[-MOST:] if isinstance(told, list) else []
    every = [_step(item) for item in listed if isinstance(item, Mapping)]
    steps = list(dropwhile(lambda step: not step.verb, every))
    plan = checkpoint.plan
    if plan is not None:
        found = _costs(_numbers(plan.cost_before), _numbers(plan.cost_after))
        steps = _completed(steps, "prune", cost=found, chosen=f"{plan.signal}, {plan.allocation}")
    accuracy = _accuracy(checkpoint.metadata.get("accuracy"))
    return tuple(_completed(steps, "finetune", accuracy=accuracy))


def _completed(steps: Sequence[RunStep], verb: str, **facts: Any) -> list[RunStep]:
    """Add facts to the last step of a verb where it tells none of them."""
    found = list(steps)
    at = max((at for at, step in enumerate(found) if step.verb == verb), default=None)
    if at is not None and all(getattr(found[at], name) is None for name in facts):
        found[at] = replace(found[at], **facts)
    return found


def _step(data: Mapping[str, Any]) -> RunStep:
    known = {name: read(data.get(name)) for name, read in READERS.items()}
    return RunStep(
        verb=verb_of(data),
        command=_text(data.get("command")) or "",
        input=_text(data.get("input")) or "",
        **known,
    )


def verb_of(step: Mapping[str, Any]) -> str:
    """Return the verb of a step as a file keeps it; empty for none that is known."""
    verb = _text(step.get("verb")) or _verb(_text(step.get("command")) or "")
    return verb if verb in VERBS else ""


def _verb(command: str) -> str:
    """Return the verb of a command line, which older versions did not write beside it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    return next((word for word in words[1:] if word in VERBS), "")


def _text(value: Any) -> str | None:
    return value[:LONGEST] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if fine and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbers(value: Any) -> dict[str, float]:
    """Return the entries of an object that are numbers."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    read = ((str(name)[:LONGEST], _number(number)) for name, number in pairs)
    return {name: number for name, number in read if number is not None}


def _budget(value: Any) -> dict[str, dict[str, float]] | None:
    if not isinstance(value, Mapping):
        return None
    return {str(kind)[:LONGEST]: _numbers(limit) for kind, limit in value.items()}


def _cut(value: Any) -> CutCost | None:
    if not isinstance(value, Mapping):
        return None
    return _costs(_numbers(value.get("before")), _numbers(value.get("after")))


def _costs(before: Mapping[str, float], after: Mapping[str, float]) -> CutCost | None:
    """Return what a file tells of the costs of a cut, kinds that this version does not know too."""
    shared = in_order(before.keys() & after.keys())
    if not set(shared) >= {"flops", "params"}:  # what pages and pictures show of every step
        return None
    return CutCost(
        before=Cost({name: before[name] for name in shared}),
        after=Cost({name: after[name] for name in shared}),
        kept={name: after[name] / before[name] if before[name] else 1.0 for name in shared},
    )


def _verified(value: Any) -> Verified | None:
    found = value if isinstance(value, Mapping) else {}
    method, error = _text(found.get("method")), _number(found.get("max_rel_error"))
    if method is None or error is None:
        return None
    limits = found.get("limits")
    return Verified(
        method,
        error,
        by_structure=found.get("by_structure") is True,
        scope=_text(found.get("scope")) or "",
        limits=tuple(filter(None, map(_text, limits if isinstance(limits, list) else ()))),
    )


def _accuracy(value: Any) -> AccuracyChange | None:
    found = value if isinstance(value, Mapping) else {}
    before, after = _number(found.get("before")), _number(found.get("after"))
    if before is None or after is None:
        return None
    return AccuracyChange(before, after, _text(found.get("split")) or "")


READERS: dict[str, Callable[[Any], Any]] = {
    "cost": _cut,
    "budget": _budget,
    "chosen": _text,
    "sparsity": _number,
    "verified": _verified,
    "accuracy": _accuracy,
    "teacher": _number,
    "epochs": _count,
    "best_epoch": _count,
}
"""How every fact about a step is read from a file."""
