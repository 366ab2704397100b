"""Which atoms of one coupling are which of another: of a network, and of what blocks it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.graph.coupling.groups import STAYS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import Atoms, ChannelGroup, CouplingGraph


def atoms_in(whole: CouplingGraph, part: CouplingGraph) -> NDArray[np.int64]:
    """Return, per atom of `part`, the atom of `whole` that the same channels have there.

    Both couple tensors of the same names and shapes; what meets in `part` meets in `whole` too.
    `STAYS` where the channels could not go before.
    """
    found = np.full(part.atom_count, STAYS)
    for group in part.groups:
        for name, dim in group.producers:
            own, theirs = part.tensors[name][dim], whole.tensors.get(name, {}).get(dim)
            if theirs is not None and _match_(found, group, own, theirs):
                break
    return found


def _match_(found: NDArray[np.int64], group: ChannelGroup, own: Atoms, theirs: Atoms) -> bool:
    """Write the atoms of a group as one of the memberships of the same positions names them."""
    for row in own:
        mine = (row >= group.first) & (row < group.first + group.width)
        for other in theirs:
            atoms, matched = row[mine], other[mine]
            found[atoms] = matched
            # Of heads and the width in them, the other one changes along the positions of an atom.
            if atoms.size and bool((found[atoms] == matched).all()):
                return True
    found[group.atoms] = STAYS
    return False
