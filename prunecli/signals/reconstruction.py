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

from prunecli.evaluation.batches import count_images
from prunecli.evaluation.outputs import first_tensor
from prunecli.graph.emitting.emit import emit
from prunecli.graph.emitting.program import build
from prunecli.least_squares.elimination import eliminate
from prunecli.least_squares.equations import WIDEST, Draw
from prunecli.preflight.pruning import no_images
from prunecli.progress import Step
from prunecli.signals.derive import Watcher, pull
from prunecli.signals.readers import Reader, Sums, readers_of, sums_of
from prunecli.signals.score import PRESETS, OnImages
from prunecli.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prunecli.evaluation.batches import Batches
    from prunecli.signals.score import Traced
    from prunecli.signals.subject import Subject


HELD = 1 << 20
"""Numbers of the images that are worked on at once, for their derivatives."""

ENOUGH = 32
"""Rows per column that are enough to choose channels; to refit layers takes more."""

PASSES = 2**41
"""Multiply-adds of the readers beyond which fewer images are looked at."""

BACKWARD = 2**40
"""Those beyond which derivatives are taken of fewer images."""


def reconstruction(subject: Subject) -> Tensor:
    """Return what every channel adds to the error of the layers that read it, in its turn.

    NaN for the channels of groups that something else reads than convolutions and linear layers.
    """
    readers = readers_of(subject.trace, subject.coupling, subject.tensors)
    sums = {reader.node: sums_of(reader) for reader in readers}
    gather_(sums, readers, subject)
    result = torch.full((subject.coupling.atom_count,), torch.nan, dtype=torch.float64)
    seen = {reader.name for reader in readers}
    for at, group in enumerate(subject.coupling.groups):
        subject.progress(Step("eliminating", at, len(subject.coupling.groups)))
        if {name for name, _ in group.consumers} <= seen:
            found = (reader.problem(group, sums[reader.node]) for reader in readers)
            problems = [problem for problem in found if problem is not None]
            if problems:
                result[group.atoms] = eliminate(problems)
    return result


class _Gatherer(Watcher):
    """Runs a graph and adds what every reader reads to its sums, on the way."""

    def __init__(
        self,
        module: fx.GraphModule,
        readers: Sequence[Reader],
        sums: Mapping[str, Sums],
        images: int,
    ) -> None:
        super().__init__(module, frozenset(sums))
        self.readers = {reader.node: reader for reader in readers}
        self.sums = sums
        self.draws = {name: Draw(images, enough=ENOUGH) for name in sums}

    def run_node(self, n: fx.Node) -> Any:
        reader = self.readers.get(n.name)
        if reader is not None:
            inputs = self.env[n.all_input_nodes[0]].detach()
            for columns in reader.rows(inputs, self.draws[n.name]):
                self.sums[n.name].add(columns)
        return super().run_node(n)


@dataclass(frozen=True)
class Extent:
    """How many of the images are looked at, and of how many of those derivatives are taken."""

    images: int
    looked_at: int
    derived: int

    @classmethod
    def of(cls, readers: Sequence[Reader], images: int) -> Extent:
        """Return what a network allows: of a large one fewer images say enough."""
        work = max(1, sum(reader.positions * reader.weight.numel() for reader in readers))
        return cls(images, *(min(images, max(1, most // work)) for most in (PASSES, BACKWARD)))

    def of_batches(self, batches: Batches) -> Iterator[tuple[Tensor, bool]]:
        """Yield what is looked at, an even share of every batch, and whether it is derived."""
        seen = looked_at = derived = 0
        for batch, _ in batches:
            seen += len(batch)
            for_derivatives = -(-seen * self.derived // self.images) - derived
            for_sums = -(-seen * self.looked_at // self.images) - looked_at
            derived, looked_at = derived + for_derivatives, looked_at + for_sums
            yield batch[:for_derivatives], True
            yield batch[for_derivatives:for_sums], False


def gather_(sums: Mapping[str, Sums], readers: Sequence[Reader], subject: Subject) -> None:
    """Fill the sums of all readers in one pass over the images.

    The derivatives are those of a random mixture of the logits, another one for every image: their
    products are, on average, what an output does to all logits. Labels are not looked at.
    """
    assert subject.batches is not None
    everything = np.ones(subject.coupling.atom_count, np.bool_)
    module = build(emit(subject.trace, subject.coupling, everything), subject.tensors)
    for value in module.parameters():
        value.requires_grad_(False)
    images = count_images(subject.batches)
    if not images:
        raise no_images(subject.signal)
    extent = Extent.of(readers, images)
    walk = _Gatherer(module, readers, sums, extent.looked_at)
    draws = {reader.node: Draw(extent.derived) for reader in readers}
    generator = torch.Generator().manual_seed(subject.seed)
    done = 0
    for batch, derived in extent.of_batches(subject.batches()):
        for inputs in torch.split(batch, max(1, HELD // batch[:1].numel())) if len(batch) else ():
            with torch.set_grad_enabled(derived):
                logits = first_tensor(walk.run(inputs)).float()
            if derived:
                gradients = pull(_mixed(logits, generator), walk.values)
                for reader in readers:
                    rows = reader.gradient_rows(gradients[reader.node], draws[reader.node])
                    sums[reader.node].add_gradient(rows, share=len(inputs) / extent.derived)
            done += len(inputs)
            subject.progress(Step("scoring", done, extent.looked_at))


def _mixed(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return the sum of random mixtures of the logits, one for every image."""
    mixture = torch.randn(logits.shape, generator=generator).to(logits)
    # A shift of all classes together changes nothing.
    mixture -= mixture.mean(-1, keepdim=True)
    with torch.enable_grad():
        return (logits * mixture).sum()


def fallbacks(network: Traced, images: int) -> list[str]:
    """Say what is too large to be scored in full, and what is done instead."""
    readers = readers_of(network.trace, network.coupling, network.tensors)
    extent, said = Extent.of(readers, images), []
    if extent.derived < images:
        said.append(
            f"reconstruction looked at {extent.looked_at:,} of {images:,} images, and took "
            f"derivatives of {extent.derived:,}: that is enough for a model of this size"
        )
    wide = sorted((reader for reader in readers if reader.wide), key=lambda found: -found.columns)
    if wide:
        count = len(wide)
        said.append(
            f"{counted(count, 'layer')} {verb(count, 'reads', 'read')} more than {WIDEST:,} "
            f"numbers ({wide[0].name}: {wide[0].columns:,}): what {verb(count, 'it', 'they')} "
            "would miss is estimated channel by channel, without a refit"
        )
    return said


PRESETS.add(
    "reconstruction",
    OnImages(reconstruction, fallbacks),
    summary="What the layers that read a channel lose with it after a refit; without labels.",
    source="prunecli; after He et al. 2017, arXiv 1707.06168, and Hassibi, Stork 1993",
)
