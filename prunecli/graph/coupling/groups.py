"""From traced graph to channel groups: resolve its ids, and gather what is cut together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunecli.graph.coupling.ids import FIXED, Freeze
from prunecli.graph.coupling.products import Resolution, Roots, resolve
from prunecli.graph.coupling.propagate import NOTHING_APART, propagate
from prunecli.graph.coupling.roles import roles

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prunecli.graph.rules import Annotation
    from prunecli.graph.tracing.trace import Trace

Atoms = NDArray[np.int64]
"""`[memberships, positions]` of a tensor dimension: the atoms that decide about each position.

A position goes when any of its atoms goes (a channel of attention: its head, or its place in every
head); -1 stands for one that must stay.
"""

STAYS = -1

SLOTS = ":slots"
"""Ends the name of a group that no weight makes: slots of a stream, called by who reads them."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that occur at the same sites: `atoms` of them, numbered `first` and on.

    An atom is the smallest set of channels that must be cut together; it counts as one channel.
    `producers` and `consumers` are the (tensor, dim) sites that make and read the channels;
    `multiplicity` is how many of a layer's channels one atom stands for (the channels of a group of
    a grouped convolution, or of a head). `exact` is False where a cut is legal but differs from a
    mask (a norm runs over the channels). `contracted` is True where a product of two activations
    sums over the channels (the width of queries and keys). `axes` is how many groups decide
    together about the positions of this one: 2 for heads and the width inside them. `silent` is
    True where what the channels are added to goes on without them: a removed one is then one that
    its own layers leave at 0.
    `sites` are those of tensors that evaluation reads, `read_in_training` those that read the
    channels in training alone.
    """

    name: str
    first: int
    width: int
    sites: tuple[tuple[str, int], ...]
    producers: tuple[tuple[str, int], ...]
    consumers: tuple[tuple[str, int], ...]
    multiplicity: int
    exact: bool
    contracted: bool = False
    axes: int = 1
    silent: bool = False
    read_in_training: tuple[tuple[str, int], ...] = ()

    @property
    def atoms(self) -> slice:
        """The group's range of atoms."""
        return slice(self.first, self.first + self.width)


@dataclass(frozen=True)
class Frozen:
    """Channels that cannot be cut: which layer makes them, why, and the line that says so."""

    name: str
    reason: str
    where: str | None
    sites: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class CouplingGraph:
    """Every channel group, what is frozen, and the atom of every position of every tensor.

    `tensors[name][dim]` and `values[node][dim]` hold atoms (`Atoms`) of parameters and of
    activations; dimensions that nothing can cut are left out. `unfollowed` says why operators
    freeze all that they touch, and how often: no rule knows them, or theirs fails on a call.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[Frozen, ...]
    tensors: Mapping[str, Mapping[int, Atoms]]
    values: Mapping[str, Mapping[int, Atoms]]
    fingerprint: str
    atom_count: int
    unfollowed: Mapping[str, int] = field(default_factory=dict)

    def kept(self, atoms: Atoms, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the positions of a dimension that stay; `keep` has one entry per atom."""
        return np.flatnonzero(staying(atoms, keep))


NOTHING_CUT = CouplingGraph((), (), {}, {}, "", 0)
"""The coupling of a graph that is only written down: it has no channels that could go."""

ALL_KEPT: NDArray[np.bool_] = np.zeros(0, np.bool_)
"""What is kept of `NOTHING_CUT`, by atom."""


def staying(atoms: Atoms, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return one boolean per position: whether all of its atoms are kept."""
    return np.asarray(((atoms == STAYS) | keep[atoms]).all(0))


def couple(
    trace: Trace, training: Trace | None = None, *, apart: Mapping[str, int] = NOTHING_APART
) -> CouplingGraph:
    """Propagate ids through the graph and resolve them into channel groups.

    With `training`, the trace of training mode, weights that only it reads join the groups whose
    channels they read or make, and what either graph ties is tied. Channels that no weight makes in
    evaluation stay. `apart` names nodes, each with a dimension in which it has channels of its own,
    which what it is made from does not decide about.
    """
    known, ids, unfollowed = propagate(trace, training, apart=apart)
    found = resolve(ids)
    names = {**trace.tensors, **({} if training is None else training.tensors)}
    tensors = {name: _dims(known[node], found) for node, name in names.items() if node in known}
    producers, consumers = roles(trace, known, found)
    trained = set() if training is None else roles(training, known, found)[1] - consumers
    stays = found.mask(freeze.ids for freeze in ids.frozen)
    stays[found.roots[FIXED]] = True
    stays |= _not_channels(tensors, producers, found.count) & ~_read(tensors, found.mask(ids.made))
    marks = _Marks(stays, found.mask(ids.inexact), found.mask(ids.contracted), found.parallel)
    groups, atom_of = _groups(tensors, producers, consumers, marks)
    groups = _with_training(groups, trained, set(trace.tensors.values()))
    return CouplingGraph(
        groups=groups,
        frozen=_report_frozen(ids.frozen, found, tensors, producers),
        tensors=_atoms(tensors, atom_of),
        values=_atoms(
            {
                name: _dims(axes, found)
                for name, axes in known.items()
                if isinstance(axes, tuple) and name not in names
            },
            atom_of,
        ),
        fingerprint=_fingerprint(trace),
        atom_count=sum(group.width for group in groups),
        unfollowed=unfollowed,
    )


def _dims(annotation: Annotation, found: Resolution) -> dict[int, Roots]:
    assert isinstance(annotation, tuple)
    return {dim: found.of(axis) for dim, axis in enumerate(annotation) if axis is not None}


def _not_channels(
    tensors: Mapping[str, Mapping[int, Roots]], producers: set[tuple[str, int]], count: int
) -> NDArray[np.bool_]:
    """Positions that no weight makes are no channels (rows of a table, positions of a kernel)."""
    made = np.zeros(count, np.bool_)
    for name, dim in producers:
        if dim in tensors[name]:
            made[tensors[name][dim]] = True
    return ~made


def _read(tensors: Mapping[str, Mapping[int, Roots]], made: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which of the channels that count as made occur in any weight."""
    occurs = np.zeros(made.size, np.bool_)
    for dims in tensors.values() if made.any() else ():
        for found in dims.values():
            occurs[found] = True
    return np.asarray(made & occurs)


@dataclass(frozen=True)
class _Marks:
    """What is known about every class of tied ids: one boolean each."""

    stays: NDArray[np.bool_]
    inexact: NDArray[np.bool_]
    contracted: NDArray[np.bool_]
    parallel: NDArray[np.bool_]


def _groups(
    tensors: Mapping[str, Mapping[int, Roots]],
    producers: set[tuple[str, int]],
    consumers: set[tuple[str, int]],
    marks: _Marks,
) -> tuple[tuple[ChannelGroup, ...], Atoms]:
    """Gather classes with the same sites into groups, in the order in which layers make them."""
    members = _same_sites(tensors, producers, marks)
    atom_of = np.full(marks.stays.size, STAYS)
    groups: list[ChannelGroup] = []
    taken: dict[str, int] = {}
    first = 0
    by_root = _sites_by_root([group[0] for group in members], tensors)
    for roots, own in zip(members, by_root, strict=True):
        atom_of[roots] = np.arange(first, first + roots.size)
        made = tuple(site for site in own if site in producers)
        root = roots[0]
        first_site = (made or own)[0]
        rows = tensors[first_site[0]][first_site[1]]
        name = first_site[0].rpartition(".")[0] or first_site[0]
        if not made:
            name = f"{name}{SLOTS}"
        groups.append(
            ChannelGroup(
                name=_unique(f"{name}:heads" if marks.parallel[root] else name, taken),
                first=first,
                width=int(roots.size),
                sites=own,
                producers=made,
                consumers=tuple(site for site in own if site in consumers),
                multiplicity=int((rows == root).sum()),
                exact=not bool(marks.inexact[root]),
                contracted=bool(marks.contracted[root]),
                axes=int((~marks.stays[rows[:, (rows == root).any(0)][:, 0]]).sum()),
            )
        )
        first += int(roots.size)
    return tuple(groups), atom_of


def _with_training(
    groups: tuple[ChannelGroup, ...], trained: set[tuple[str, int]], evaluated: set[str]
) -> tuple[ChannelGroup, ...]:
    """Tell the sites of evaluation from those that read channels in training alone."""
    return tuple(
        replace(
            group,
            sites=tuple(site for site in group.sites if site[0] in evaluated),
            read_in_training=tuple(site for site in group.sites if site in trained),
        )
        for group in groups
    )


def _same_sites(
    tensors: Mapping[str, Mapping[int, Roots]], producers: set[tuple[str, int]], marks: _Marks
) -> list[Roots]:
    """Return the classes that can be cut, those that occur at the same sites together."""
    signature = np.zeros(marks.stays.size, np.uint64)
    random = np.random.default_rng(0)
    first_seen = np.full(marks.stays.size, np.iinfo(np.int64).max)
    seen = 0
    for name, dims in tensors.items():
        for dim, found in dims.items():
            count = np.bincount(found.reshape(-1), minlength=marks.stays.size).astype(np.uint64)
            signature += count * random.integers(1, 2**63, dtype=np.uint64)
            if (name, dim) in producers:
                order = np.broadcast_to(seen + np.arange(found.shape[1]), found.shape)
                np.minimum.at(first_seen, found, order)
                seen += found.shape[1]
    for mark in (marks.inexact, marks.contracted, marks.parallel):
        signature += mark.astype(np.uint64) * random.integers(1, 2**63, dtype=np.uint64)
    alive = np.flatnonzero(~marks.stays)
    alive = alive[np.argsort(first_seen[alive], kind="stable")]
    keys: dict[int, list[int]] = {}
    for root in alive.tolist():
        keys.setdefault(int(signature[root]), []).append(root)
    return [np.asarray(roots) for roots in keys.values()]


def _sites_by_root(
    wanted: list[int], tensors: Mapping[str, Mapping[int, Roots]]
) -> list[tuple[tuple[str, int], ...]]:
    position = {root: at for at, root in enumerate(wanted)}
    result: list[list[tuple[str, int]]] = [[] for _ in wanted]
    targets = np.asarray(sorted(position), np.int64)
    for name, dims in tensors.items():
        for dim, found in dims.items():
            for root in targets[np.isin(targets, found)].tolist():
                result[position[root]].append((name, dim))
    return [tuple(sites) for sites in result]


def _unique(name: str, taken: dict[str, int]) -> str:
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}#{taken[name]}"


def _atoms(
    tensors: Mapping[str, Mapping[int, Roots]], atom_of: Atoms
) -> dict[str, dict[int, Atoms]]:
    result: dict[str, dict[int, Atoms]] = {}
    for name, dims in tensors.items():
        cut = {}
        for dim, roots in dims.items():
            atoms = atom_of[roots]
            atoms = atoms[(atoms != STAYS).any(1)]
            if atoms.size:
                cut[dim] = atoms
        if cut:
            result[name] = cut
    return result


def _report_frozen(
    freezes: Iterable[Freeze],
    found: Resolution,
    tensors: Mapping[str, Mapping[int, Roots]],
    producers: set[tuple[str, int]],
) -> tuple[Frozen, ...]:
    """Name every layer whose channels an explicit reason freezes, once."""
    made = [(site, np.unique(tensors[site[0]][site[1]])) for site in sorted(producers)]
    if not made:
        return ()
    root = np.concatenate([roots for _, roots in made])
    site = np.repeat(np.arange(len(made)), [roots.size for _, roots in made])
    reports: dict[str, Frozen] = {}
    quiet: list[tuple[Freeze, NDArray[np.bool_]]] = []
    stays = np.zeros(found.count, np.bool_)
    stays[found.roots[FIXED]] = True
    for freeze in freezes:
        held = np.zeros(found.count, np.bool_)
        held[found.of(freeze.ids)] = True
        held[found.roots[FIXED]] = False
        stays |= held
        if not freeze.report:
            quiet.append((freeze, held))
            continue
        sites = tuple(made[at][0] for at in np.unique(site[held[root]]).tolist())
        if sites:
            _report(reports, freeze, sites)
    # Whatever else holds a layer is worth a word where the layer loses nothing at all.
    whole = np.asarray([bool(stays[roots].all()) for _, roots in made])
    for freeze, held in quiet:
        for at in np.unique(site[held[root]]).tolist():
            if whole[at]:
                _report(reports, freeze, (made[at][0],))
    return tuple(reports.values())


def _report(reports: dict[str, Frozen], freeze: Freeze, sites: tuple[tuple[str, int], ...]) -> None:
    name = sites[0][0].rpartition(".")[0] or sites[0][0]
    reports.setdefault(name, Frozen(name, freeze.reason, freeze.where, sites))


def _fingerprint(trace: Trace) -> str:
    """Return a hash of the operators, their wiring and the shapes, not of any weight."""
    digest = hashlib.sha256()
    for node in trace.graph.nodes:
        inputs = ",".join(value.name for value in node.all_input_nodes)
        value = node.meta.get("val")
        shape = tuple(str(size) for size in value.shape) if isinstance(value, Tensor) else ()
        target = trace.tensors.get(node.name, node.target)
        digest.update(f"{node.name}|{target}|{inputs}|{shape}\n".encode())
    return digest.hexdigest()[:16]
