"""Bias propagation: move the constants of channels that go into what is left of their readers.

Following the mean replacement pruning of Evci 2018 (arXiv 1806.06068): `b += W[:, j] m_j`. Ours is
what the paper leaves open. Where zero padding makes a border, or nothing behind the layer can take
a constant, another constant channel `k` carries it: `W[:, k] += W[:, j] m_j / m_k`, which is exact
at borders too. So of all constant channels that such a layer reads, one stays.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunecli.cutting.surgery import cut_module, slices_of
from prunecli.dead.readers import movable
from prunecli.graph.coupling.groups import STAYS, staying
from prunecli.graph.tracing.folding import stored_tensors
from prunecli.proof.inputs import zero_consumers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.dead.readers import Use
    from prunecli.network.traced import Network

STRONG = 0.01
"""A carrier is at least this large, as a share of what it carries: else it magnifies rounding."""

BORDER = "zero padding gives its constant a border that no bias has"
NO_SINK = "no bias or batch norm can take its constant"
CARRIES = "it carries the constants of others"


@dataclass(frozen=True)
class Settled:
    """Which channels can go, why others stay, and which position carries constants at which use.

    `carriers[use]` is one position per weight group; `borders` are the channels that stay because
    a measured border effect alone could let them go.
    """

    gone: NDArray[np.bool_]
    stays: Mapping[int, str]
    carriers: Mapping[int, tuple[int, ...]]
    borders: NDArray[np.bool_]


@dataclass(frozen=True)
class Moved:
    """The tensors that take constants over; `borders` are the largest errors at borders, by layer.

    They are differences in the output of the layer, in its own unit.
    """

    tensors: Mapping[str, Tensor]
    borders: Mapping[str, float] = field(default_factory=dict)


def settle(
    network: Network,
    uses: Sequence[Use],
    wanted: NDArray[np.bool_],
    *,
    accepted: NDArray[np.bool_],
) -> Settled:
    """Return which of the `wanted` channels can go.

    `accepted` are those that may leave an error at borders. Every layer is asked in turn; a channel
    that one of them keeps stays for all.
    """
    gone = wanted.copy()
    stays: dict[int, str] = {}
    carriers: dict[int, tuple[int, ...]] = {}
    borders = np.zeros_like(gone)
    changed = True
    while changed:
        changed = False
        for at, use in enumerate(uses):
            needs = _needs(network, use, gone)
            carriers.pop(at, None)
            if not needs.any() or (not use.closed and use.even and use.sink is not None):
                continue
            found = None if use.closed else _carriers(use, needs, gone)
            if found is not None:
                carriers[at] = found
                continue
            kept, reason = _kept(use, needs, gone, accepted)
            if kept.any():
                stays.update(dict.fromkeys(np.flatnonzero(kept).tolist(), reason))
                borders[kept] = reason == BORDER
                gone &= ~kept
                changed = True
    return Settled(gone, stays, carriers, borders)


def move(network: Network, uses: Sequence[Use], settled: Settled) -> Moved:
    """Return the tensors of the network after every constant was moved; all weights stay else."""
    tensors: dict[str, Tensor] = {}
    borders: dict[str, float] = {}

    def taken(name: str) -> Tensor:
        if name not in tensors:
            tensors[name] = (
                network.tensors[name].detach().double().clone(memory_format=torch.contiguous_format)
            )
        return tensors[name]

    for at, use in enumerate(uses):
        needs = _needs(network, use, settled.gone)
        if not needs.any():
            continue
        constants = np.where(needs, use.seen.value, 0.0)
        if at in settled.carriers:
            _carry_(use, taken(use.weight), constants, settled.carriers[at])
            continue
        assert use.sink is not None
        made = use.push(constants, network.tensors[use.weight].detach())
        left = torch.as_tensor(_left(use, len(made), settled.gone), device=made.device)
        constant = made.mean(1)
        taken(use.sink.tensor).add_(use.sink.sign * constant * left)
        error = (made - constant[:, None]).abs().amax(1)[left]
        if not use.even and error.numel():
            borders[use.seen.place.reader] = float(error.max())
    return Moved(tensors, borders)


def changed_tensors(network: Network, gone: NDArray[np.bool_], moved: Moved) -> dict[str, Tensor]:
    """Return the tensors that are others once the constants are moved and nothing reads `gone`."""
    slices = slices_of(network.coupling, ~gone)
    readers = {name for group in network.coupling.groups for name, _ in group.consumers}
    own = stored_tensors(network.model)
    names = (readers & slices.keys() & movable(network)) | moved.tensors.keys()
    state = {name: moved.tensors.get(name, own[name]) for name in names}
    zeroed = zero_consumers(state, network.coupling, slices, torch.float64)
    return {name: value.to(own[name].dtype) for name, value in zeroed.items()}


def compensated(network: Network, gone: NDArray[np.bool_], moved: Moved) -> Network:
    """Return the dense network with constants moved, and nothing that reads the channels `gone`.

    The model is a copy; the given one stays as it is. Raises `GraphError` for a model that cannot
    be copied.
    """
    model = cut_module(network.model, {})
    places = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        for name, value in changed_tensors(network, gone, moved).items():
            places[name].copy_(value)
    return dataclasses.replace(network, model=model)


def _needs(network: Network, use: Use, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which positions go, are not zero, and are read into an output that stays."""
    needs = np.asarray(~staying(use.seen.place.atoms, ~gone) & (use.seen.value != 0))
    if not needs.any() or use.closed:
        return needs
    # A layer of its own for each channel, or for each few, goes with them.
    columns = use.columns(network.tensors[use.weight].detach()).abs().amax(3)
    outputs = use.groups * columns.shape[2]
    left = torch.as_tensor(_left(use, outputs, gone), device=columns.device)
    read = (columns * left.view(use.groups, 1, -1)).amax(2).flatten() > 0
    return np.asarray(needs & read.cpu().numpy())


def _left(use: Use, outputs: int, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which outputs of a layer stay."""
    return np.ones(outputs, np.bool_) if use.out is None else staying(use.out, ~gone)


def _carriers(
    use: Use, needs: NDArray[np.bool_], gone: NDArray[np.bool_]
) -> tuple[int, ...] | None:
    """Return, per weight group, a constant position that stays and is large enough to carry."""
    value = np.abs(use.seen.value).reshape(use.groups, -1)
    asked = np.where(needs, np.abs(use.seen.value), 0.0).reshape(use.groups, -1).max(1)
    able = (use.seen.constant & staying(use.seen.place.atoms, ~gone)).reshape(value.shape)
    best = np.where(able, value, 0.0).argmax(1)
    rows = np.arange(use.groups)
    enough = (asked == 0) | (able[rows, best] & (value[rows, best] >= STRONG * asked))
    return tuple(best.tolist()) if enough.all() else None


def _kept(
    use: Use, needs: NDArray[np.bool_], gone: NDArray[np.bool_], accepted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], str]:
    """Return which channels a layer that finds no carrier keeps, and why."""
    atoms = use.seen.place.atoms
    if use.closed:
        return _atoms(atoms[:, needs], gone), use.closed
    if use.sink is not None:
        # What was accepted leaves its border effect; the others go on asking.
        needs = needs & ~_held(atoms, accepted)
        if not needs.any():
            return np.zeros_like(gone), BORDER
    reason = NO_SINK if use.sink is None else BORDER
    able = needs & use.seen.constant
    if not able.any():
        return _atoms(atoms[:, needs], gone), reason
    kept = _atoms(atoms[:, [_strongest(use, needs, able)]], gone)
    others = needs & ~_held(atoms, kept)
    return kept, CARRIES if others.any() else reason


def _strongest(use: Use, needs: NDArray[np.bool_], able: NDArray[np.bool_]) -> int:
    """Return a position of the constant channel that can carry most: in most weight groups."""
    value = np.abs(use.seen.value).reshape(use.groups, -1)
    asked = np.where(needs.reshape(value.shape), value, 0.0).max(1, keepdims=True)
    share = np.divide(value, asked, out=np.ones_like(value), where=asked > 0).reshape(-1)
    atoms = use.seen.place.atoms
    places = np.flatnonzero(able)
    own = [share[able & (atoms == atoms[:, [at]]).all(0)] for at in places]
    best = max(range(len(own)), key=lambda at: ((own[at] >= STRONG).sum(), own[at].min()))
    return int(places[best])


def _held(atoms: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which positions belong to one of the chosen atoms."""
    return np.asarray(((atoms != STAYS) & chosen[atoms]).any(0))


def _atoms(atoms: NDArray[np.int64], gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.zeros_like(gone)
    found = atoms[atoms != STAYS]
    mask[found] = True
    return mask & gone


def _carry_(
    use: Use, weight: Tensor, constants: NDArray[np.float64], carriers: tuple[int, ...]
) -> None:
    """Add the columns of what goes to the column of the carrier, in the weight itself."""
    columns = use.columns(weight)
    given = torch.as_tensor(constants).to(weight).view(use.groups, -1)
    value = torch.as_tensor(use.seen.value).to(weight).view(use.groups, -1)
    rows = torch.arange(use.groups, device=weight.device)
    at = torch.as_tensor(carriers, device=weight.device)
    share = torch.where(given.any(1, keepdim=True), given / value[rows, at, None], 0.0)
    added = (columns * share[:, :, None, None]).sum(1)
    columns[rows, at] += added
