"""The kinds of cost that a network has: a new one is one entry here, or in a plugin.

An entry says what people call the cost, in which unit it is written, and how its closed form is got
from what was counted in the traced network. Budgets, reports, plans, tables and pages follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prunecli.cost.flops import Term
    from prunecli.graph.tracing.trace import Trace

LATENCY = "latency"
"""The kind of cost that is predicted from a table of measured milliseconds."""


@dataclass(frozen=True)
class Counted:
    """What was counted in a traced network, for one input: sums of terms.

    `params` and `stored` have one term per tensor, `stored` in bytes and with buffers; `channels`
    has one per channel group.
    """

    trace: Trace
    flops: Sequence[Term]
    activations: Sequence[Term]
    params: Sequence[Term]
    stored: Sequence[Term]
    channels: Sequence[Term]


@dataclass(frozen=True)
class CostKind:
    """One kind of cost.

    `label` is what people call it. `terms` picks its closed form; a kind without one is predicted
    from a latency table. `unit` is `ms` for times, and empty for what is counted in k, M and G.
    `removed_as` names the budget that says how much of it *goes*, where there is no budget that
    says how much stays. A kind that is no `budget` is only reported.
    """

    label: str
    terms: Callable[[Counted], Sequence[Term]] | None
    unit: str = ""
    removed_as: str = ""
    budget: bool = True


COST_KINDS: Registry[CostKind] = Registry("cost")
"""All kinds of cost by the name that they have in files, in the order in which they are shown."""

COST_KINDS.add(
    "flops",
    CostKind("FLOPs", lambda counted: counted.flops),
    summary="Multiply-adds of one input.",
    source="fvcore",
)
COST_KINDS.add(
    "params",
    CostKind("parameters", lambda counted: counted.params),
    summary="Elements of all parameters.",
)
COST_KINDS.add(
    "activations",
    CostKind("activations", lambda counted: counted.activations),
    summary="Elements of the outputs of convolutions and matrix products.",
    source="fvcore",
)
COST_KINDS.add(
    "bytes",
    CostKind("bytes", lambda counted: counted.stored),
    summary="Bytes of all parameters and buffers in a file.",
)
COST_KINDS.add(
    "channels",
    CostKind("channels", lambda counted: counted.channels, removed_as="sparsity"),
    summary="Channels that can be cut.",
)
COST_KINDS.add(
    LATENCY,
    CostKind("predicted latency", None, unit="ms"),
    summary="Milliseconds of a forward in ONNX Runtime on this machine's CPU.",
)


def kind_of(name: str) -> CostKind:
    """Return a kind of cost by name; one of a newer version, or of a plugin, goes by its name."""
    return COST_KINDS.get(name) if name in COST_KINDS else CostKind(name, None)


def cost_label(name: str) -> str:
    """Return what people call a kind of cost.

    >>> cost_label("flops"), cost_label("joules")
    ('FLOPs', 'joules')
    """
    return kind_of(name).label


def in_order(names: Iterable[str]) -> list[str]:
    """Return kinds of cost in the order in which they are shown, unknown ones last.

    >>> in_order(["joules", "params", "flops"])
    ['flops', 'params', 'joules']
    """
    known = COST_KINDS.names()
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))


def budget_kinds() -> dict[str, str]:
    """Return the kinds that a budget may limit, by the name of the budget.

    >>> budget_kinds()["sparsity"]
    'channels'
    """
    kinds = ((entry.name, entry.value) for entry in COST_KINDS if entry.value.budget)
    return {kind.removed_as or name: name for name, kind in kinds}
