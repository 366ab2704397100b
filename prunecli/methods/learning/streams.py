"""Mixed connectivity in a search: what follows of the gates of writers, for slots and for blocks.

Source: Lemaire et al. 2019 (arXiv 1811.09332), fig. 5: writers alone have gates; a slot that nobody
writes is not there, a block that writes nothing is not either, nor is one with an empty layer
inside. That slots are expected to be alive as if writers were drawn apart is ours.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunecli.allocation import keep_mask
from prunecli.gating.bank import Places, Site, ValueSite
from prunecli.gating.places import places_of, sites_of
from prunecli.graph.coupling.groups import STAYS
from prunecli.graph.coupling.matching import atoms_in
from prunecli.graph.writers import writing_sites, written_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from prunecli.cost.model import Widths
    from prunecli.graph.blocks import Block
    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.graph.writers import Apart
    from prunecli.network.traced import Network

    Atoms = NDArray[np.int64]


@dataclass(frozen=True)
class Inside:
    """A block that can go: the atoms of its inner layers, a line for each, and what it writes.

    `terms` are those of the cost model that go with it.
    """

    block: Block
    layers: tuple[Atoms, ...]
    made: Atoms
    terms: NDArray[np.bool_]


@dataclass(frozen=True)
class Streams:
    """The streams of a network, by the atoms of the one with its writers apart.

    `network` is that one, `whole` the one as it is. `made` are the atoms that writers make, `slots`
    those that are there only once somebody has written them; `written` [slots, writers] lists who
    may have, before they are read there (the last atom: nobody). `others` are slots that others
    write too.
    """

    whole: Network
    network: Network
    made: Atoms
    slots: Atoms
    written: Atoms
    others: NDArray[np.bool_]
    insides: tuple[Inside, ...]

    def hard(self, gates: Tensor) -> Tensor:
        """Return gates [atoms and one] in which a slot is 1 where somebody writes it, else 0."""
        return self._followed(gates, lambda written: (written > 0).any(1).to(gates.dtype))

    def expected(self, gates: Tensor) -> Tensor:
        """Return expected gates [atoms and one], with those of slots; differentiable."""
        return self._followed(gates, lambda written: 1 - (1 - written).prod(1))

    def _followed(self, gates: Tensor, alive: Callable[[Tensor], Tensor]) -> Tensor:
        slots, writers = (
            torch.as_tensor(each, device=gates.device) for each in (self.slots, self.written)
        )
        written = torch.cat([gates[:-1], gates.new_zeros(1)])[writers]
        return gates.index_put((slots,), alive(written))

    def settled(self, opened: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what is open [atoms] once blocks are closed that write nothing or have no layer.

        All gates of such a block are closed; slots follow.
        """
        found = np.append(opened, False)
        for inside in self.insides:
            layers = (found[atoms].any() for atoms in inside.layers)
            if not (found[inside.made].any() and all(layers)):
                for atoms in (*inside.layers, inside.made):
                    found[atoms] = False
        found[self.slots] = found[self.written].any(1)
        return found[:-1]

    def cost(self, opened: NDArray[np.bool_], widths: Widths) -> dict[str, float]:
        """Return every cost of what is open and settled, at its widths; blocks that go cost 0."""
        model = self.network.cost
        terms = model.terms(widths)
        for inside in self.insides:
            if not opened[inside.made].any():
                terms[inside.terms] = 0.0
        return {kind: float(terms[at].sum()) for kind, at in model.kinds.items()}

    def may_close(self, gated: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the gated atoms (booleans) that may all be closed: those of blocks that can go."""
        found = np.zeros_like(gated)
        for inside in self.insides:
            if gated[inside.made].all():
                for atoms in (*inside.layers, inside.made):
                    found[atoms] = gated[atoms]
        return found

    def held(self) -> dict[str, str]:
        """Return the groups of slots that are there in any case, and why."""
        return {
            group.name: "a layer whose writing has no gates of its own writes its channels too"
            for group in self.network.coupling.groups
            if group.producers and self.others[group.atoms].any()
        }

    def places(self, gated: NDArray[np.bool_], where: str) -> Places:
        """Return where gates are: those of writers on what they write, others as in any search."""
        written = np.zeros_like(gated)
        written[self.made] = True
        inner = places_of(self.network, gated & ~written, where)
        followed = np.zeros_like(gated)
        followed[self.slots] = True
        slots = sites_of(self.network.coupling, followed)
        apart = self.whole.untied
        values = (
            ValueSite(
                written_name(writer),
                writer.dim,
                apart.made(writer)[None],
                tuple(
                    Site(name, {dim: apart.coupling.tensors[name][dim]})
                    for name, dim in writing_sites(apart, writer)
                ),
            )
            for writer in apart.writers
            if gated[apart.made(writer)].all()
        )
        return Places((*inner.weights, *slots), (*inner.values, *values))

    def left(self, opened: NDArray[np.bool_]) -> tuple[Network, NDArray[np.bool_]]:
        """Return the network that has what is open and settled, and what of its atoms is kept."""
        apart, whole = self.whole.untied, self.whole
        deleted = [each.block for each in self.insides if not opened[each.made].any()]
        gone = {block.name for block in deleted}
        writes = {
            writer.name: tuple(np.flatnonzero(opened[apart.made(writer)]).tolist())
            for writer in apart.writers
            if writer.name not in gone and not opened[apart.made(writer)].all()
        }
        network = whole.without(deleted, writes)
        keep = np.ones(whole.coupling.atom_count + 1, np.bool_)
        inner = np.setdiff1d(np.arange(opened.size), self.made)
        keep[self.in_whole[inner]] = opened[inner]
        keep[STAYS] = True
        left = keep[atoms_in(whole.coupling, network.coupling)]
        return network, left & ~network.unwritten

    def widths_like(self, saliency: NDArray[np.float64], widths: Widths) -> Widths:
        """Return the widths, with writers apart, of a cut of the whole network to `widths`."""
        keep = np.append(keep_mask(self.whole.coupling.groups, saliency, widths), True)
        kept = keep[self.in_whole]
        groups = self.network.coupling.groups
        return np.asarray([int(kept[group.atoms].sum()) for group in groups], np.int64)

    @property
    def in_whole(self) -> Atoms:
        """The atom of the whole network that an atom is a part of."""
        return atoms_in(self.whole.coupling, self.network.coupling)


def make_streams(whole: Network) -> Streams:
    """Return the streams of a network."""
    apart = whole.untied
    network = dataclasses.replace(whole, trace=apart.trace, coupling=apart.coupling)
    groups, count = apart.coupling.groups, apart.coupling.atom_count
    writing: dict[int, list[int]] = {}
    written: dict[int, tuple[int, ...]] = {}
    for writer in apart.writers:
        lines = (apart.made(writer), apart.slots(writer), apart.tied(writer))
        for made, slot, tied in zip(*(line.tolist() for line in lines), strict=True):
            writing.setdefault(tied, []).append(made)
            if slot != STAYS and not apart.always[tied]:
                written[slot] = tuple(writing[tied])
    others = np.zeros(count + 1, np.bool_)
    for writer in apart.writers:
        others[apart.before(writer)] = others[apart.slots(writer)] = True
    others[list(written)] = False
    return Streams(
        whole,
        network,
        np.asarray(list(itertools.chain(*writing.values())), np.int64),
        np.asarray(list(written), np.int64),
        _table(tuple(written.values()), count),
        others[:-1],
        tuple(_insides(apart, groups, network.cost.nodes)),
    )


def _table(rows: Sequence[tuple[int, ...]], nobody: int) -> Atoms:
    found = np.full((len(rows), max((len(row) for row in rows), default=1)), nobody)
    for at, row in enumerate(rows):
        found[at, : len(row)] = row
    return found


def _insides(
    apart: Apart, groups: Sequence[ChannelGroup], nodes: Sequence[str]
) -> Iterator[Inside]:
    atoms = np.arange(apart.coupling.atom_count)
    for writer in apart.writers:
        if writer.block is None:
            continue
        made = apart.made(writer)
        own = [
            group
            for group in groups
            if group.producers
            and {name for name, _ in group.producers} <= set(writer.block.tensors)
            and not np.isin(atoms[group.atoms], made).any()
        ]
        alone = {*writer.block.nodes, *writer.block.tensors}
        terms = np.asarray([node in alone for node in nodes], np.bool_)
        yield Inside(writer.block, tuple(atoms[group.atoms] for group in own), made, terms)
