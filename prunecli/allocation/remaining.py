"""What costs most where everything is as narrow as allowed, and why it stays."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from prunecli.cost.kinds import LATENCY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prunecli.allocation.problem import Problem

SHOWN = 3
"""So many layers are named; the others are summed."""

WORTH_A_WORD = 0.01
"""The sum of the others is shown if it is more than this part of what stays."""


def what_stays(problem: Problem, kind: str) -> str:
    """Return the layers that keep most of a cost whatever is cut, with their shares and reasons.

    Shares are of the cost of the model before any cut.
    """
    dense = problem.cost.dense[kind]
    shares = {name: cost / dense for name, cost in _remaining(problem, kind).items()}
    largest = sorted(shares, key=lambda name: (-shares[name], name))[:SHOWN]
    named = [f"{name} {_percent(shares[name])} ({_reason(problem, name)})" for name in largest]
    others = sum(share for name, share in shares.items() if name not in largest)
    rest = (
        [f"all others {_percent(others)}"] if others > WORTH_A_WORD * sum(shares.values()) else []
    )
    return "what stays whatever is cut: " + ", ".join([*named, *rest])


def _percent(share: float) -> str:
    """Return a share with two digits that count: what stays may be little."""
    return f"{100 * share:.1f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def limits(problem: Problem) -> Iterator[str]:
    """Yield what to change about the options that keep groups wider than they have to be."""
    whole = problem.smallest == problem.full
    reasons = [
        problem.why.get(group.name, "")
        for group, stays in zip(problem.groups, whole, strict=True)
        if stays
    ]
    aligned = any("--align" in reason or "--min-width" in reason for reason in reasons)
    if aligned or ((problem.smallest > 1) & ~whole).any():
        yield "a smaller --align or --min-width"
    yield from (
        f"{which} {option} patterns"
        for option, which in (("--exclude", "fewer"), ("--only", "more"))
        if any(option in reason for reason in reasons)
    )


def _remaining(problem: Problem, kind: str) -> Mapping[str, float]:
    """Return the cost at the smallest widths by layer; what has no layer has its own name."""
    widths = problem.smallest
    names = {group.name for group in problem.groups}
    if kind == LATENCY:
        own = problem.cost.gradient(kind, widths) * widths
        return {group.name: float(cost) for group, cost in zip(problem.groups, own, strict=True)}
    found: defaultdict[str, float] = defaultdict(float)
    for owner, cost in problem.cost.by_owner(kind, widths).items():
        found[owner if owner in names else _layer(owner)] += cost
    return found


def _reason(problem: Problem, name: str) -> str:
    """Return why a layer keeps what it costs: its own channels stay, or go so far alone."""
    made = [
        at
        for at, group in enumerate(problem.groups)
        if group.name == name or any(_layer(tensor) == name for tensor, _ in group.producers)
    ]
    if not made:
        return problem.why.get(name, "it makes no channels that can be cut")
    least, full = problem.smallest[made], problem.full[made]
    for at in np.flatnonzero(least == full):
        group = problem.groups[made[at]]
        return problem.why.get(group.name, f"its {full[at]} channels stay")
    read = problem.fixed_reads.get(name)
    beside = f", and it reads {read} that stay" if read else ""
    return f"{least.sum()} of {full.sum()} channels are the least{beside}"


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor
