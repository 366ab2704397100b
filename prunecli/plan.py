"""The pruning plan: which channels stay. Pure data, the meeting point of all methods."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLAN_SCHEMA = 1

GRAPH = "graph"
"""The mode of a plan whose cut is the traced graph, written again."""

Indices = tuple[int, ...]

MOST_INDICES = 2**22
"""No dimension of a network is longer; a few letters in a file could otherwise fill the memory."""


@dataclass(frozen=True)
class PruningPlan:
    """Which channels of which group stay (`keep`), and what that means for every tensor (`slices`).

    `keep` is the decision, for people: kept indices by channel-group name. `slices` is its
    consequence, `{tensor: {dim: kept indices}}`, so that a plan is applied without a trace.
    `mode` says how it was applied: `module` (the user's own class, narrower) or `graph` (the traced
    graph, re-emitted). In module mode `attributes`, `{module: {name: value}}`, are the integers of
    modules that follow the cut (heads, split sizes), and `factors`, `{tensor: ((positions of
    dimension 0, factor), ...)}`, are applied before the slices: they restore the temperature of
    attention whose width is cut. `deleted`, `{block: tensors}`, names the residual blocks that are
    left out (graph mode alone), each with the tensors of the dense network whose zeros make its
    branch 0: what was proven is that the dense network with these zeroed is the network without.
    `writes` has the slots of the stream that a block writes, of blocks that write only some.
    """

    fingerprint: str
    keep: Mapping[str, Indices]
    slices: Mapping[str, Mapping[int, Indices]]
    mode: str = "module"
    attributes: Mapping[str, Mapping[str, int | tuple[int, ...]]] = field(default_factory=dict)
    factors: Mapping[str, tuple[tuple[Indices, float], ...]] = field(default_factory=dict)
    signal: str = ""
    allocation: str = ""
    budget: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost_before: Mapping[str, float] = field(default_factory=dict)
    cost_after: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    deleted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    writes: Mapping[str, Indices] = field(default_factory=dict)
    schema: int = PLAN_SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; index lists are written as ranges, `"0-3,7"`."""
        return {
            "schema": self.schema,
            "fingerprint": self.fingerprint,
            "mode": self.mode,
            "signal": self.signal,
            "allocation": self.allocation,
            "budget": {kind: dict(limit) for kind, limit in self.budget.items()},
            "cost_before": dict(self.cost_before),
            "cost_after": dict(self.cost_after),
            "seed": self.seed,
            "keep": {name: format_indices(kept) for name, kept in self.keep.items()},
            "slices": {
                name: {str(dim): format_indices(kept) for dim, kept in dims.items()}
                for name, dims in self.slices.items()
            },
            "attributes": {
                path: {
                    name: value if isinstance(value, int) else list(value)
                    for name, value in values.items()
                }
                for path, values in self.attributes.items()
            },
            "factors": {
                name: [[format_indices(rows), factor] for rows, factor in factors]
                for name, factors in self.factors.items()
            },
            "deleted": {name: list(tensors) for name, tensors in self.deleted.items()},
            "writes": {name: format_indices(slots) for name, slots in self.writes.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PruningPlan:
        """Read what `to_json` wrote; raise `InputError` for anything else."""
        try:
            schema = data["schema"]
            if schema != PLAN_SCHEMA:
                raise InputError(
                    f"this plan has schema {schema}, and this version reads {PLAN_SCHEMA}",
                    code="PLAN_SCHEMA",
                    hint="use the prunecli version that wrote it, or prune again",
                )
            return cls(
                fingerprint=str(data["fingerprint"]),
                keep={name: parse_indices(text) for name, text in data["keep"].items()},
                slices={
                    name: {int(dim): parse_indices(text) for dim, text in dims.items()}
                    for name, dims in data["slices"].items()
                },
                mode=str(data["mode"]),
                attributes={
                    path: {name: _size(value) for name, value in values.items()}
                    for path, values in data.get("attributes", {}).items()
                },
                factors={
                    name: tuple((parse_indices(rows), float(factor)) for rows, factor in factors)
                    for name, factors in data.get("factors", {}).items()
                },
                signal=str(data["signal"]),
                allocation=str(data["allocation"]),
                budget=data["budget"],
                cost_before=data["cost_before"],
                cost_after=data["cost_after"],
                seed=int(data["seed"]),
                deleted={
                    str(name): tuple(str(tensor) for tensor in tensors)
                    for name, tensors in data.get("deleted", {}).items()
                },
                writes={
                    str(name): parse_indices(slots)
                    for name, slots in data.get("writes", {}).items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"not a pruning plan: {error!r}", code="BAD_PLAN", hint="prune again to make one"
            ) from error

    def dumps(self) -> str:
        """Return the plan as JSON text, the same text for the same plan."""
        return json.dumps(self.to_json(), sort_keys=True)


def format_indices(indices: Sequence[int]) -> str:
    """Write ascending indices as ranges.

    >>> format_indices((0, 1, 2, 5, 7, 8))
    '0-2,5,7-8'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def parse_indices(text: str) -> Indices:
    """Read what `format_indices` wrote.

    >>> parse_indices("0-2,5,7-8")
    (0, 1, 2, 5, 7, 8)
    """
    if not text:
        return ()
    pairs = [part.partition("-") for part in text.split(",")]
    runs = [range(int(first), int(last or first) + 1) for first, _, last in pairs]
    ends = [end for run in runs for end in (run.start, run.stop)]
    if ends[-1] > MOST_INDICES or any(a >= b for a, b in zip(ends[::2], ends[1::2], strict=True)):
        raise ValueError(f"{text[:40]!r} is no list of channels")
    if any(later < earlier for earlier, later in zip(ends[1::2], ends[2::2], strict=False)):
        raise ValueError(f"{text[:40]!r} is not ascending")
    return tuple(index for run in runs for index in run)


def _size(value: Any) -> int | tuple[int, ...]:
    if type(value) is int:
        return value
    if not all(type(item) is int for item in value):
        raise TypeError(f"{value!r} is no size")
    return tuple(value)


def compose(first: PruningPlan, second: PruningPlan) -> dict[str, dict[int, Indices]]:
    """Return the slices of cutting by `first` and then by `second`, on the original tensors."""
    slices = {name: dict(dims) for name, dims in first.slices.items()}
    for name, dims in second.slices.items():
        for dim, kept in dims.items():
            before = slices.setdefault(name, {}).get(dim)
            slices[name][dim] = kept if before is None else tuple(before[index] for index in kept)
    return slices


def compose_factors(
    first: PruningPlan, second: PruningPlan
) -> dict[str, tuple[tuple[Indices, float], ...]]:
    """Return the factors of cutting by `first` and then by `second`, on the original tensors."""
    factors = dict(first.factors)
    for name, later in second.factors.items():
        kept = first.slices.get(name, {}).get(0)
        factors[name] = factors.get(name, ()) + tuple(
            (rows if kept is None else tuple(kept[row] for row in rows), factor)
            for rows, factor in later
        )
    return factors
