"""What follows a cut: the coupling of the network that is left, and its weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from prunecli.graph.coupling.groups import STAYS, CouplingGraph, staying

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from prunecli.cutting.surgery import Slices
    from prunecli.graph.coupling.groups import Atoms


def narrowed(coupling: CouplingGraph, keep: NDArray[np.bool_]) -> CouplingGraph:
    """Return the coupling of what a cut leaves: the same groups, their atoms numbered anew.

    Every group has to keep an atom. The numbers of atoms grow in the same order as before.
    """
    number = np.append(np.where(keep, np.cumsum(keep) - 1, STAYS), STAYS)

    def left(dims: Mapping[int, Atoms]) -> dict[int, Atoms]:
        # `number[STAYS]` is the last entry: what stays has no number, before and after.
        return {dim: number[atoms[:, staying(atoms, keep)]] for dim, atoms in dims.items()}

    first, groups = 0, []
    for group in coupling.groups:
        width = int(keep[group.atoms].sum())
        groups.append(dataclasses.replace(group, first=first, width=width))
        first += width
    return dataclasses.replace(
        coupling,
        groups=tuple(groups),
        tensors={name: left(dims) for name, dims in coupling.tensors.items()},
        values={name: left(dims) for name, dims in coupling.values.items()},
        atom_count=first,
    )


@torch.no_grad()
def write_back_(dense: nn.Module, slim: Mapping[str, Tensor], slices: Slices) -> None:
    """Put the tensors of a cut network where they come from in the dense one; the rest stays."""
    places = {**dict(dense.named_parameters()), **dict(dense.named_buffers())}
    for name, place in places.items():
        if name not in slim:
            continue
        value, dims = slim[name].to(place), slices.get(name, {})
        if not dims:
            place.copy_(value)
            continue
        kept = [torch.tensor(dims.get(dim, range(size))) for dim, size in enumerate(place.shape)]
        place[torch.meshgrid(*kept, indexing="ij")] = value
