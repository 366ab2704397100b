"""What the layers that read a channel lose with it, once refitted: our signal for repairs.

A layer that reads the channels `x` makes `w x`. Without some of them, least squares makes as much
of its outputs as it can from the rest; what is still missing is the error of a choice of channels.
Here the channels of a group go one after another, always the one that is missed least by all layers
that read it, the optimal brain surgeon for blocks of columns (`least_squares.elimination`). The
saliency of a channel is what its turn adds to the error, so that the sum over the least salient
ones is the error without them, and an allocation can weigh layers against one another. To choose
channels by the error after a refit is from He et al. 2017 (arXiv 1707.06168); this way to do it is
our reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.evaluation.outputs import first_tensor
from prunecli.graph.emitting.emit import emit
from prunecli.graph.emitting.program import build
from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.least_squares.elimination import Blocks, Elimination, eliminate
from prunecli.least_squares.equations import ROWS, WIDEST, Draw, add_rows_
from prunecli.progress import Step
from prunecli.signals.derive import Watcher, pull
from prunecli.signals.places import channel_dim
from prunecli.signals.score import PRESETS, OnImages
from prunecli.signals.subject import no_images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.graph.coupling.groups import Atoms, ChannelGroup
    from prunecli.signals.subject import Subject


HELD = 1 << 19
"""Numbers of the images that are worked on at once, for their derivatives."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads channels: its node, its weight, and the atoms of what it reads.

    `gram` is the sum of products of its columns and a column of ones, `[groups, width, width]`,
    and `metric` that of the derivatives of its outputs, `[groups, targets, targets]`.
    `intercept` tells whether a constant can be added to its outputs.
    """

    node: str
    operator: str
    arguments: Mapping[str, Any]
    name: str
    weight: Tensor
    atoms: Atoms
    intercept: bool
    gram: Tensor
    metric: Tensor


def reconstruction(subject: Subject) -> Tensor:
    """Return what every channel adds to the error of the layers that read it, in its turn.

    NaN for the channels of groups that something else reads than convolutions and linear layers.
    """
    readers = readers_of(subject)
    gather_(readers, subject)
    result = torch.full((subject.coupling.atom_count,), torch.nan, dtype=torch.float64)
    seen = {reader.name for reader in readers}
    for at, group in enumerate(subject.coupling.groups):
        subject.progress(Step("eliminating", at, len(subject.coupling.groups)))
        if {name for name, _ in group.consumers} <= seen:
            problems = [found for reader in readers if (found := _problem(reader, group))]
            if problems:
                result[group.atoms] = eliminate(problems)
    return result


def readers_of(subject: Subject) -> list[Reader]:
    """Return every convolution and linear layer with a weight of its own that reads channels."""
    consumers = {name for group in subject.coupling.groups for name, _ in group.consumers}
    found = []
    for node in subject.trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in ROWS:
            continue
        arguments = schema_arguments(node)
        name = subject.trace.tensors.get(arguments["weight"].name)
        source = arguments["input"]
        dim = channel_dim(operator, source, arguments["weight"])
        atoms = subject.coupling.values.get(source.name, {}).get(dim)
        named = isinstance(arguments.get("padding"), str)
        if name not in consumers or atoms is None or named:
            continue
        weight = subject.tensors[name].detach()
        if weight[0].numel() > WIDEST:
            continue
        groups, size = int(arguments.get("groups", 1)), weight[0].numel() + 1
        targets = len(weight) // groups
        found.append(
            Reader(
                node=node.name,
                operator=operator,
                arguments=arguments,
                name=name,
                weight=weight,
                atoms=atoms,
                intercept=arguments["bias"] is not None or _norm_follows(node),
                gram=torch.zeros(groups, size, size, dtype=torch.float64),
                metric=torch.zeros(groups, targets, targets, dtype=torch.float64),
            )
        )
    return found


def _norm_follows(node: fx.Node) -> bool:
    users = list(node.users)
    norm = users[0] if len(users) == 1 and users[0].op == "call_function" else None
    return norm is not None and operator_name(norm.target) == "batch_norm"


class _Gatherer(Watcher):
    """Runs a graph and adds what every reader reads to its gram, on the way."""

    def __init__(self, module: fx.GraphModule, readers: Mapping[str, Reader], images: int) -> None:
        super().__init__(module, frozenset(readers))
        self.readers = readers
        self.draws = {name: Draw(images) for name in readers}

    def run_node(self, n: fx.Node) -> Any:
        reader = self.readers.get(n.name)
        if reader is not None:
            inputs = self.env[n.all_input_nodes[0]].detach()
            rows, draw = ROWS[reader.operator], self.draws[n.name]
            for (columns,) in rows(inputs, (), reader.weight, reader.arguments, draw):
                add_rows_(reader.gram, columns)
        return super().run_node(n)


def gather_(readers: Sequence[Reader], subject: Subject) -> None:
    """Fill the sums of all readers in one pass over the images.

    The derivatives are those of a random mixture of the logits, another one for every image: their
    products are, on average, what an output does to all logits. Labels are not looked at.
    """
    assert subject.batches is not None
    everything = np.ones(subject.coupling.atom_count, np.bool_)
    module = build(emit(subject.trace, subject.coupling, everything), subject.tensors)
    for value in module.parameters():
        value.requires_grad_(False)
    images = sum(len(inputs) for inputs, _ in subject.batches())
    if not images:
        raise no_images(subject.signal)
    walk = _Gatherer(module, {reader.node: reader for reader in readers}, images)
    generator = torch.Generator().manual_seed(subject.seed)
    done = 0
    for batch, _ in subject.batches():
        for inputs in torch.split(batch, max(1, HELD // batch[0].numel())):
            with torch.enable_grad():
                logits = first_tensor(walk.run(inputs)).float()
                mixture = torch.randn(logits.shape, generator=generator).to(logits)
                # A shift of all classes together changes nothing.
                mixture -= mixture.mean(-1, keepdim=True)
                gradients = pull((logits * mixture).sum(), walk.values)
            for reader in readers:
                _add_metric_(reader, gradients[reader.node], share=len(inputs) / images)
            done += len(inputs)
            subject.progress(Step("scoring", done, images))


def _add_metric_(reader: Reader, gradient: Tensor, *, share: float) -> None:
    """Add the mean over images and positions, of which these are a share.

    Over positions it is the mean and not the sum: what is missing on a large map early in a network
    is mended by the layers behind, which are refitted too. On ResNet-56 at 0.7 of the FLOPs the cut
    network then is nearer the dense one (divergence 0.057 for 0.063 nats).
    """
    rows = gradient.flatten(0, -2)
    if reader.operator != "linear":
        rows = gradient.transpose(0, 1).flatten(1).T
    split = rows.double().reshape(len(rows), *reader.metric.shape[:2]).transpose(0, 1)
    reader.metric.add_(split.mT @ split, alpha=share / len(rows))


def _problem(reader: Reader, group: ChannelGroup) -> tuple[Elimination, Blocks] | None:
    """Return a reader as a problem that loses the channels of a group; None if it reads none."""
    blocks = _blocks(reader, group)
    if blocks is None:
        return None
    groups, _, size = reader.gram.shape
    weight = reader.weight.double().reshape(groups, -1, size - 1).mT
    gram = reader.gram / reader.gram[:, -1:, -1:]
    if not reader.intercept:
        gram = gram[:, :-1, :-1]
    return Elimination(gram, weight, reader.metric), blocks


def _blocks(reader: Reader, group: ChannelGroup) -> Blocks | None:
    """Return the columns of every atom of a group; None where a reader reads none of them."""
    groups, _, size = reader.gram.shape
    width = reader.atoms.shape[1] // groups
    each = (size - 1) // width
    inside = (reader.atoms >= group.first) & (reader.atoms < group.atoms.stop)
    _, positions = np.nonzero(inside)
    if not positions.size:
        return None
    slots = (positions // width) * group.width + reader.atoms[inside] - group.first
    order = np.argsort(slots, kind="stable")
    counts = np.bincount(slots, minlength=groups * group.width)
    # The place of every position among those of its atom.
    rank = np.arange(slots.size) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = np.zeros((groups * group.width, counts.max(), each), np.int64)
    real = np.zeros(columns.shape, np.bool_)
    at = slots[order], rank
    columns[at] = (positions[order] % width)[:, None] * each + np.arange(each)
    real[at] = True
    shape = (groups, group.width, counts.max() * each)
    return Blocks(torch.as_tensor(columns).view(shape), torch.as_tensor(real).view(shape))


PRESETS.add(
    "reconstruction",
    OnImages(reconstruction),
    summary="What the layers that read a channel lose with it after a refit; without labels.",
    source="prunecli; after He et al. 2017, arXiv 1707.06168, and Hassibi, Stork 1993",
)
