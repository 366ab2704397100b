"""Layers that read channels, as least-squares problems that lose columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.graph.operators import operator_name, schema_arguments, shape_of
from prunecli.least_squares.elimination import Blocks, Elimination, Missed, Unrefitted
from prunecli.least_squares.equations import (
    FEWEST,
    PRECISE,
    ROWS,
    WIDEST,
    Draw,
    Waiting,
    add_rows_,
    worth_a_pass,
)
from prunecli.signals.places import channel_dim

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prunecli.graph.coupling.groups import Atoms, ChannelGroup, CouplingGraph
    from prunecli.graph.tracing.trace import Trace

METRIC_WORK = 2**33
"""Rows of derivatives times targets squared beyond which positions are drawn, not all taken."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels: its node, its weight, and the atoms of what it reads.

    `positions` are the places of its output, for one image; `intercept` tells whether a constant
    can be added to its outputs.
    """

    node: str
    operator: str
    arguments: Mapping[str, Any]
    name: str
    weight: Tensor
    atoms: Atoms
    positions: int
    intercept: bool

    @property
    def groups(self) -> int:
        """The groups of a grouped convolution; 1 for any other layer."""
        return int(self.arguments.get("groups", 1))

    @property
    def columns(self) -> int:
        """The numbers that an output is made of."""
        return self.weight[0].numel()

    @property
    def targets(self) -> int:
        """The outputs of a group."""
        return len(self.weight) // self.groups

    @property
    def wide(self) -> bool:
        """Whether its equations would be too large to be solved."""
        return self.columns > WIDEST

    def rows(self, inputs: Tensor, draw: Draw) -> Iterator[Tensor]:
        """Yield what it reads at positions that are drawn, `[groups, rows, columns]`."""
        for (columns,) in ROWS[self.operator](inputs, (), self.weight, self.arguments, draw):
            yield columns

    def gradient_rows(self, gradient: Tensor, draw: Draw) -> Tensor:
        """Return derivatives of its outputs at positions that are drawn, `[groups, rows, targets]`.

        All positions are taken where that is little work.
        """
        maps = gradient.movedim(-1, 1) if self.operator == "linear" else gradient
        maps = maps.reshape(*maps.shape[:2], -1)
        rows = max(METRIC_WORK // self.targets**2, FEWEST * draw.images)
        drawn = draw.some(maps.shape[2], rows)
        if len(drawn) < maps.shape[2]:
            maps = maps[..., drawn.to(maps.device)]
        return maps.transpose(0, 1).reshape(self.groups, self.targets, -1).mT

    def problem(self, group: ChannelGroup, sums: Sums) -> tuple[Missed, Blocks] | None:
        """Return it as a problem that loses the channels of a group; None if it reads none."""
        blocks = self._blocks(group)
        if blocks is None:
            return None
        weight = self.weight.reshape(self.groups, self.targets, -1).mT
        return sums.problem(weight.double()), blocks

    def _blocks(self, group: ChannelGroup) -> Blocks | None:
        width = self.atoms.shape[1] // self.groups
        each = self.columns // width
        inside = (self.atoms >= group.first) & (self.atoms < group.atoms.stop)
        _, positions = np.nonzero(inside)
        if not positions.size:
            return None
        slots = (positions // width) * group.width + self.atoms[inside] - group.first
        order = np.argsort(slots, kind="stable")
        slots, starts, counts = np.unique(slots[order], return_index=True, return_counts=True)
        # The entry of every position, and its place among those of its entry.
        entry = np.repeat(np.arange(slots.size), counts)
        rank = np.arange(order.size) - np.repeat(starts, counts)
        columns = np.zeros((slots.size, counts.max(), each), np.int64)
        real = np.zeros(columns.shape, np.bool_)
        columns[entry, rank] = (positions[order] % width)[:, None] * each + np.arange(each)
        real[entry, rank] = True
        return Blocks(
            count=group.width,
            block=torch.as_tensor(slots % group.width),
            group=torch.as_tensor(slots // group.width),
            columns=torch.as_tensor(columns).flatten(1),
            real=torch.as_tensor(real).flatten(1),
        )


class Sums(Protocol):
    """What is summed up of the rows of a reader, and the problem that it makes."""

    def add(self, columns: Tensor) -> None:
        """Add what the layer reads, `[groups, rows, columns]`."""

    def add_gradient(self, rows: Tensor, *, share: float) -> None:
        """Add derivatives `[groups, rows, targets]` of a share of all images, as a mean.

        Over positions it is the mean and not the sum: what is missing on a large map early in a
        network is mended by the layers behind, which are refitted too. On ResNet-56 at 0.7 of the
        FLOPs the cut network then is nearer the dense one (divergence 0.057 for 0.063 nats).
        """

    def problem(self, weight: Tensor) -> Missed:
        """Return the problem, for the layer's weight `[groups, columns, targets]` in float64."""


class Products:
    """All products: of columns (and ones) with one another, and of derivatives."""

    def __init__(self, reader: Reader) -> None:
        groups, size, targets = reader.groups, reader.columns + 1, reader.targets
        self.intercept = reader.intercept
        self.gram = torch.zeros(groups, size, size, dtype=torch.float64)
        self.metric = torch.zeros(groups, targets, targets, dtype=torch.float64)
        self.waiting = Waiting(
            worth_a_pass(reader.columns), lambda rows: add_rows_(self.gram, rows)
        )

    def add(self, columns: Tensor) -> None:
        """Add what the layer reads, `[groups, rows, columns]`."""
        self.waiting.add(columns)

    def add_gradient(self, rows: Tensor, *, share: float) -> None:
        """Add derivatives `[groups, rows, targets]` of a share of all images, as a mean."""
        rows = rows.double() if rows.shape[2] <= PRECISE else rows
        self.metric.add_(rows.mT @ rows, alpha=share / rows.shape[1])

    def problem(self, weight: Tensor) -> Missed:
        """Return the problem, for the layer's weight `[groups, columns, targets]` in float64."""
        self.waiting.empty()
        gram = self.gram / self.gram[:, -1:, -1:]
        if not self.intercept:
            gram = gram[:, :-1, :-1]
        return Elimination(gram, weight, self.metric)


class Squares:
    """For a layer that is too wide: squares alone, as if columns and outputs were independent.

    Least squares leaves such a layer as it is, so nothing is refitted; what is left is the
    diagonal of optimal brain damage (LeCun et al. 1989) for this error.
    """

    def __init__(self, reader: Reader) -> None:
        self.columns = torch.zeros(reader.groups, reader.columns, dtype=torch.float64)
        self.targets = torch.zeros(reader.groups, reader.targets, 1, dtype=torch.float64)
        self.rows = 0

    def add(self, columns: Tensor) -> None:
        """Add what the layer reads, `[groups, rows, columns]`."""
        self.columns += columns.double().square().sum(1)
        self.rows += columns.shape[1]

    def add_gradient(self, rows: Tensor, *, share: float) -> None:
        """Add derivatives `[groups, rows, targets]` of a share of all images, as a mean."""
        self.targets.add_(rows.double().square().sum(1)[..., None], alpha=share / rows.shape[1])

    def problem(self, weight: Tensor) -> Missed:
        """Return the problem, for the layer's weight `[groups, columns, targets]` in float64."""
        each = (weight.square() @ self.targets)[..., 0] * self.columns / self.rows
        return Unrefitted(each)


def sums_of(reader: Reader) -> Sums:
    """Return empty sums for a reader, as large as it allows."""
    return Squares(reader) if reader.wide else Products(reader)


def readers_of(
    trace: Trace, coupling: CouplingGraph, tensors: Mapping[str, Tensor]
) -> tuple[Reader, ...]:
    """Return every convolution and linear layer with a weight of its own that reads channels."""
    consumers = {name for group in coupling.groups for name, _ in group.consumers}
    found = []
    for node in trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in ROWS:
            continue
        arguments = schema_arguments(node)
        name = trace.tensors.get(arguments["weight"].name)
        source = arguments["input"]
        dim = channel_dim(operator, source, arguments["weight"])
        atoms = coupling.values.get(source.name, {}).get(dim)
        named = isinstance(arguments.get("padding"), str)
        if name not in consumers or atoms is None or named:
            continue
        found.append(
            Reader(
                node=node.name,
                operator=operator,
                arguments=arguments,
                name=name,
                weight=tensors[name].detach(),
                atoms=atoms,
                positions=math.prod(shape_of(node, trace.batch)) // len(tensors[name]),
                intercept=arguments["bias"] is not None or _norm_follows(node),
            )
        )
    return tuple(found)


def _norm_follows(node: fx.Node) -> bool:
    users = list(node.users)
    norm = users[0] if len(users) == 1 and users[0].op == "call_function" else None
    return norm is not None and operator_name(norm.target) == "batch_norm"
