"""The whole network beside the narrow one that trains: slices are taken out, and put back.

The narrow network has room for so many channels of every group. Which ones it holds changes from
step to step: the tensors of the whole network, the optimiser's state of them and their average
take in what was trained, and give out the slices to train next. What is not taken out rests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.graph.coupling.groups import staying
from prunecli.training.average import ExponentialAverage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import Atoms, CouplingGraph
    from prunecli.training.method import TrainingRun

Indices = tuple[tuple[int, Tensor], ...]
"""Dimensions of a tensor, and which positions of each are taken."""


class Slicer:
    """Finds, for a choice of atoms, the positions of every tensor that are taken.

    Tensors along the same atoms have the same positions, which are found once.
    """

    def __init__(self, coupling: CouplingGraph, chosen: NDArray[np.bool_]) -> None:
        """`chosen` are the atoms that are chosen from: tensors without any of them stay whole."""
        known: dict[bytes, int] = {}
        self.atoms: list[Atoms] = []
        self.dims: dict[str, tuple[tuple[int, int], ...]] = {}
        for name, dims in coupling.tensors.items():
            own = {dim: atoms for dim, atoms in dims.items() if not staying(atoms, ~chosen).all()}
            for atoms in own.values():
                if known.setdefault(_key(atoms), len(self.atoms)) == len(self.atoms):
                    self.atoms.append(atoms)
            if own:
                self.dims[name] = tuple((dim, known[_key(atoms)]) for dim, atoms in own.items())

    def positions(self, keep: NDArray[np.bool_], device: torch.device) -> dict[str, Indices]:
        """Return the positions that are kept, of every tensor that is cut."""
        found = [torch.as_tensor(staying(atoms, keep).nonzero()[0], device=device)
                 for atoms in self.atoms]  # fmt: skip
        return {name: tuple((dim, found[at]) for dim, at in dims)
                for name, dims in self.dims.items()}  # fmt: skip


def _key(atoms: Atoms) -> bytes:
    return bytes(str(atoms.shape), "ascii") + atoms.tobytes()


def taken(whole: Tensor, indices: Indices) -> Tensor:
    """Return the slice of a tensor at these positions."""
    for dim, positions in indices:
        whole = whole.index_select(dim, positions)
    return whole


def put_back_(whole: Tensor, indices: Indices, value: Tensor) -> None:
    """Write a slice where `taken` takes it from; everything else keeps its bits."""
    (dim, positions), *others = indices
    if others:
        rows = whole.index_select(dim, positions)
        put_back_(rows, tuple(others), value)
        value = rows
    whole.index_copy_(dim, positions, value)


class Whole:
    """The tensors of the whole network, the optimiser's state of them, and their average.

    `at` says where the narrow network's slices lie; it is empty before the first ones.
    """

    def __init__(self, module: nn.Module, slicer: Slicer, run: TrainingRun) -> None:
        self.module = module.to(run.device).requires_grad_(requires_grad=False)
        self.slicer = slicer
        self.at: Mapping[str, Indices] = {}
        self.states: dict[str, dict[str, Tensor]] = {}
        self.average: ExponentialAverage | None = None
        if run.average is not None:
            self.average = ExponentialAverage(self.module, decay=run.average.decay)

    def point_(self, keep: NDArray[np.bool_]) -> None:
        """Say which channels the narrow network has now."""
        device = next(iter(tensors_of(self.module).values())).device
        self.at = self.slicer.positions(keep, device)

    @torch.no_grad()
    def take_in_(self, run: TrainingRun) -> None:
        """Put everything that trained back to where it was taken from."""
        for whole, narrow, indices in self._pairs(run) if self.at else ():
            if indices:
                put_back_(whole, indices, narrow)
            else:
                whole.copy_(narrow)

    @torch.no_grad()
    def give_out_(self, run: TrainingRun) -> None:
        """Fill the narrow network, its optimiser and its average with their slices.

        What is not sliced is there already.
        """
        for whole, narrow, indices in self._pairs(run):
            if indices:
                narrow.copy_(taken(whole, indices))

    @torch.no_grad()
    def rest_(self, run: TrainingRun) -> None:
        """Let the average of weights that rest go on towards them.

        The slices that train have their own, newer one, which is put back later.
        """
        if self.average is not None:
            self.average.update(self.module, run.taken)

    def state(self) -> dict[str, Any]:
        """Return everything that is not in the narrow network as well, to save it."""
        return {
            "whole": self.module.state_dict(),
            "states": self.states,
            "average": None if self.average is None else self.average.model.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that was saved."""
        self.module.load_state_dict(state["whole"])
        places = tensors_of(self.module)
        self.states = {
            name: {key: value.to(places[name].device) for key, value in own.items()}
            for name, own in state["states"].items()
        }
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])

    def _pairs(self, run: TrainingRun) -> Iterator[tuple[Tensor, Tensor, Indices]]:
        """Yield every tensor of the whole network with its narrow one, and where that lies."""
        yield from _matched(self.module, run.bare, self.at)
        if self.average is not None and run.average is not None:
            yield from _matched(self.average.model, run.average.model, self.at)
        places = dict(self.module.named_parameters())
        for name, parameter in run.bare.named_parameters():
            if name not in self.at:
                continue  # it trains on as ever, with the state that it has
            for key, value in _moving(run.optimizer.state.get(parameter, {}), parameter):
                own = self.states.setdefault(name, {})
                if key not in own:
                    own[key] = torch.zeros_like(places[name])
                yield own[key], value, self.at[name]


def _matched(
    whole: nn.Module, narrow: nn.Module, at: Mapping[str, Indices]
) -> Iterator[tuple[Tensor, Tensor, Indices]]:
    places = tensors_of(whole)
    for name, value in tensors_of(narrow).items():
        if name in places:  # the narrow one has tables of indices of its own
            yield places[name], value, at.get(name, ())


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _moving(state: Mapping[str, Any], parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what an optimiser has one number per weight of; its counters are not cut."""
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield key, value
