"""Allocation problems with closed-form costs, and their exact solution."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from prunecli.allocation import (
    Problem,
    allowed_widths,
)
from prunecli.graph.coupling.groups import ChannelGroup


@dataclass
class Linear:
    """Each channel of a group costs the same, whatever the other widths are."""

    each: dict[str, list[float]]
    dense_widths: np.ndarray
    dense: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.dense = self.cost(self.dense_widths)

    def cost(self, widths) -> dict[str, float]:
        return {kind: float(np.dot(each, widths)) for kind, each in self.each.items()}

    def gradient(self, kind, widths):  # noqa: ARG002 - the same at all widths
        return np.asarray(self.each[kind], float)

    def by_owner(self, kind, widths):
        return {f"layer{at}": each * widths[at] for at, each in enumerate(self.each[kind])}


@dataclass
class Chain(Linear):
    """Layers in a row: what one costs is the product of its two widths."""

    def cost(self, widths) -> dict[str, float]:
        padded = np.concatenate([[3], widths, [10]]).astype(float)
        pairs = padded[:-1] * padded[1:]
        return {kind: float(np.dot(each, pairs)) for kind, each in self.each.items()}

    def by_owner(self, kind, widths):
        padded = [3, *widths, 10]
        pairs = zip(self.each[kind], padded[:-1], padded[1:], strict=True)
        return {f"layer{at}": each * left * right for at, (each, left, right) in enumerate(pairs)}

    def gradient(self, kind, widths):
        each, padded = np.asarray(self.each[kind]), np.concatenate([[3], widths, [10]])
        return each[:-1] * padded[:-2] + each[1:] * padded[2:]


def problem(
    widths, *, each=None, ceiling: float = 0.5, saliency=None, seed: int = 0, align: int = 1,
    cost=Linear, held=(),
) -> Problem:  # fmt: skip
    groups = groups_of(widths)
    each = each or {"flops": [1.0] * (len(widths) + (cost is Chain))}
    model = cost(each, np.asarray(widths))
    if saliency is None:
        saliency = np.random.default_rng(seed).random(sum(widths))
    options = allowed_widths(
        groups, eligible=lambda item: item.name not in held, align=align, min_width=1
    )
    ceilings = {kind: ceiling * dense for kind, dense in model.dense.items()}
    shapes = tuple(((width, 3 + at, 3, 3),) for at, width in enumerate(widths))
    importance = np.random.default_rng(seed + 1).random(len(widths)) + 0.01
    saliency = np.asarray(saliency, float)
    return Problem(groups, saliency, model, ceilings, options, shapes, importance)


def kept(case: Problem, widths) -> float:
    """Return the saliency of all channels that stay."""
    return sum(case.sorted_saliency(at)[:width].sum() for at, width in enumerate(widths))


def best(case: Problem) -> float:
    """Return the highest saliency that any allowed widths within the budget keep."""
    feasible = (widths for widths in itertools.product(*case.widths) if case.load(widths) <= 1)
    return max(kept(case, widths) for widths in feasible)


def groups_of(widths, multiplicity: int = 1) -> tuple[ChannelGroup, ...]:
    starts = np.concatenate([[0], np.cumsum(widths)])
    return tuple(
        group(f"layer{at}", int(starts[at]), int(width), multiplicity)
        for at, width in enumerate(widths)
    )


def group(name: str, first: int, width: int, multiplicity: int = 1) -> ChannelGroup:
    return ChannelGroup(name, first, width, (), (), (), multiplicity, exact=True)
