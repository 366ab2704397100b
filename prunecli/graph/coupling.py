"""From traced graph to channel groups: propagate ids, tie them, and collect what goes together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx

from prunecli.graph.ids import FIXED, Axis, Family, Freeze, IdSpace
from prunecli.graph.rules import RULES, Annotation, Call
from prunecli.graph.rules.call import is_pointwise, no_axes, operator_name, schema_arguments
from prunecli.graph.trace import Trace, source_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Atoms = NDArray[np.int64]
"""Per position of a tensor dimension: the atom that it belongs to, or -1 if it must stay."""

STAYS = -1


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that occur at the same sites: `atoms` of them, numbered `first` and on.

    An atom is the smallest set of channels that must be cut together; it counts as one channel.
    `producers` and `consumers` are the (tensor, dim) sites that make and read the channels;
    `multiplicity` is how many of a layer's channels one atom stands for (the channels of a group of
    a grouped convolution). `exact` is False where a cut is legal but differs from a mask (a norm
    runs over the channels). `contracted` channels meet each other without a weight between (q.k^T).
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
    activations; dimensions that nothing can cut are left out.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[Frozen, ...]
    tensors: Mapping[str, Mapping[int, Atoms]]
    values: Mapping[str, Mapping[int, Atoms]]
    fingerprint: str
    atom_count: int
    unknown: Mapping[str, int] = field(default_factory=dict)

    def kept(self, atoms: Atoms, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the positions of a dimension that stay; `keep` has one entry per atom."""
        return np.flatnonzero((atoms == STAYS) | keep[atoms])


PRODUCERS = {
    "conv1d": 0, "conv2d": 0, "conv3d": 0, "linear": 0,
    "conv_transpose1d": 1, "conv_transpose2d": 1, "conv_transpose3d": 1, "embedding": 1,
    "deform_conv2d": 0,
}  # fmt: skip
"""Operators whose weight starts channels, and on which dimension; the other one reads them."""


def couple(trace: Trace) -> CouplingGraph:
    """Propagate ids through the graph and resolve them into channel groups."""
    known, ids, unknown = propagate(trace)
    roots = _roots(ids.count, ids.ties)
    roots = _choose_axes(ids, roots)
    stays = _frozen_roots(ids, roots)
    tensors = {
        trace.tensors[name]: _dims(known[name], roots) for name in trace.tensors if name in known
    }
    producers, consumers = _roles(trace)
    stays |= _not_channels(tensors, producers, roots.max() + 1)
    groups, atom_of = _groups(tensors, producers, consumers, stays, _inexact_roots(ids, roots))
    return CouplingGraph(
        groups=groups,
        frozen=_report_frozen(ids.frozen, roots, tensors, producers),
        tensors=_atoms(tensors, atom_of),
        values=_atoms(
            {
                name: _dims(axes, roots)
                for name, axes in known.items()
                if isinstance(axes, tuple) and name not in trace.tensors
            },
            atom_of,
        ),
        fingerprint=_fingerprint(trace),
        atom_count=sum(group.width for group in groups),
        unknown=unknown,
    )


def propagate(trace: Trace) -> tuple[dict[str, Annotation], IdSpace, dict[str, int]]:
    """Run the op rules over the graph; return each node's axes, the ids, and unknown operators."""
    ids = IdSpace()
    known: dict[str, Annotation] = {}
    unknown: dict[str, int] = {}
    owned: dict[str, Annotation] = {}
    for node in trace.graph.nodes:
        ids.node, ids.where = node.name, source_line(node)
        if node.op == "placeholder":
            # A tied weight has several placeholders, which are one tensor.
            name = trace.tensors.get(node.name, node.name)
            known[node.name] = owned.get(name) or _placeholder(node, trace, ids)
            owned[name] = known[node.name]
        elif node.op == "output":
            for value in node.all_input_nodes:
                for axis in _flat(known.get(value.name)):
                    ids.freeze(axis, "output of the network")
        else:
            known[node.name] = _apply(node, known, ids, trace, unknown)
    return known, ids, unknown


def _placeholder(node: fx.Node, trace: Trace, ids: IdSpace) -> Annotation:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    if node.name in trace.tensors or node.name in trace.constants:
        return tuple(ids.fresh(int(size)) for size in value.shape)
    return (None,) * value.dim()


def _apply(
    node: fx.Node,
    known: Mapping[str, Annotation],
    ids: IdSpace,
    trace: Trace,
    unknown: dict[str, int],
) -> Annotation:
    operator = operator_name(node.target)
    call = Call(node, operator, schema_arguments(node), known, ids, trace.batch, trace.integers)
    if not call.tensors() and operator != "getitem":
        return _made_axes(node, ids)
    if operator == "pad" or operator in RULES:
        return RULES.get(operator)(call)
    if is_pointwise(node.target):
        return RULES.get("alias")(call)
    if not _holds_tensors(node.meta.get("val")):
        return None  # a size or a check: emission computes it anew
    touched = [axis for value in node.all_input_nodes for axis in _flat(known.get(value.name))]
    if any(axis is not None for axis in touched):
        unknown[operator] = unknown.get(operator, 0) + 1
    for axis in touched:
        ids.freeze(axis, f"no rule for operator {operator}")
    return no_axes(node)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and bool(value))


def _made_axes(node: fx.Node, ids: IdSpace) -> Annotation:
    """Give what is made from no tensor (a table of positions) ids of its own: it can be cut."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return no_axes(node)
    return tuple(ids.fresh(size) if isinstance(size, int) else None for size in value.shape)


def _flat(annotation: Annotation) -> Iterable[Axis]:
    if annotation is None:
        return ()
    if isinstance(annotation, list):
        return (axis for axes in annotation for axis in axes)
    return annotation


def _roots(count: int, ties: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Atoms:
    pairs = list(ties)
    first = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    second = np.concatenate([pair[1] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    edges = coo_array((np.ones(first.size, np.bool_), (first, second)), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels, np.int64)


def _choose_axes(ids: IdSpace, roots: Atoms) -> Atoms:
    """Decide along which axis each product of dimensions is cut: the one with most choices.

    Axes that share a channel are one axis. At most one axis of a family is active; the channels of
    the family follow its coordinates, and its other axes stay whole.
    """
    if not ids.families:
        return roots
    stays = _frozen_roots(ids, roots)
    names = _name_axes(ids.families, roots)
    choices: dict[int, int] = {}
    for family, labels in zip(ids.families, names, strict=True):
        for axis, label in zip(family.axes, labels, strict=True):
            alive = roots[axis][~stays[roots[axis]]]
            choices[label] = max(choices.get(label, 0), np.unique(alive).size)
    active: set[int] = set()
    for label in sorted(choices, key=lambda name: (-choices[name], name)):
        rivals = {other for labels in names if label in labels for other in labels} - {label}
        if choices[label] > 1 and not rivals & active:
            active.add(label)
    ties = list(ids.ties)
    for family, labels in zip(ids.families, names, strict=True):
        chosen = [axis for axis, name in zip(family.axes, labels, strict=True) if name in active]
        if chosen:
            ties.append((family.whole, chosen[0]))
        else:
            ids.freeze(family.whole, "no dimension of this view can be cut alone", report=False)
        for axis, name in zip(family.axes, labels, strict=True):
            if name not in active:
                ids.freeze(axis, "is cut along another dimension of the same view", report=False)
    return _roots(ids.count, ties)


def _name_axes(families: list[Family], roots: Atoms) -> list[tuple[int, ...]]:
    """Give axes that share a channel the same number."""
    axes = [axis for family in families for axis in family.axes]
    found = [np.unique(roots[axis]) for axis in axes]
    size = int(roots.max()) + 1
    row = np.repeat(np.arange(len(axes)), [item.size for item in found])
    column = np.concatenate(found) + len(axes)
    total = size + len(axes)
    edges = coo_array((np.ones(row.size, np.bool_), (row, column)), shape=(total, total))
    _, labels = connected_components(edges, directed=False)
    numbers = iter(labels[: len(axes)].tolist())
    return [tuple(next(numbers) for _ in family.axes) for family in families]


def _frozen_roots(ids: IdSpace, roots: Atoms) -> NDArray[np.bool_]:
    stays = np.zeros(int(roots.max()) + 1, np.bool_)
    stays[roots[FIXED]] = True
    for freeze in ids.frozen:
        stays[roots[freeze.ids]] = True
    return stays


def _inexact_roots(ids: IdSpace, roots: Atoms) -> NDArray[np.bool_]:
    inexact = np.zeros(int(roots.max()) + 1, np.bool_)
    for axis in ids.inexact:
        inexact[roots[axis]] = True
    return inexact


def _dims(annotation: Annotation, roots: Atoms) -> dict[int, Atoms]:
    assert isinstance(annotation, tuple)
    return {dim: roots[axis] for dim, axis in enumerate(annotation) if axis is not None}


def _roles(trace: Trace) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Return the (tensor, dim) sites of weights that make channels, and that read them."""
    producers, consumers = set(), set()
    for node in trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in PRODUCERS:
            continue
        weight = schema_arguments(node)["weight"]
        if weight.name in trace.tensors:
            made = PRODUCERS[operator]
            producers.add((trace.tensors[weight.name], made))
            consumers.add((trace.tensors[weight.name], 1 - made))
    return producers, consumers


def _not_channels(
    tensors: Mapping[str, Mapping[int, Atoms]], producers: set[tuple[str, int]], count: int
) -> NDArray[np.bool_]:
    """Positions that no weight makes are no channels (rows of a table, positions of a kernel)."""
    made = np.zeros(count, np.bool_)
    for name, dim in producers:
        if dim in tensors[name]:
            made[tensors[name][dim]] = True
    return ~made


def _groups(
    tensors: Mapping[str, Mapping[int, Atoms]],
    producers: set[tuple[str, int]],
    consumers: set[tuple[str, int]],
    stays: NDArray[np.bool_],
    inexact: NDArray[np.bool_],
) -> tuple[tuple[ChannelGroup, ...], Atoms]:
    """Gather roots with the same sites into groups, in the order in which layers make them."""
    sites = [(name, dim) for name, dims in tensors.items() for dim in dims]
    signature = np.zeros(stays.size, np.uint64)
    random = np.random.default_rng(0)
    first_seen = np.full(stays.size, np.iinfo(np.int64).max)
    seen = 0
    for name, dim in sites:
        found = tensors[name][dim]
        count = np.bincount(found, minlength=stays.size).astype(np.uint64)
        signature += count * random.integers(1, 2**63, dtype=np.uint64)
        if (name, dim) in producers:
            order = seen + np.arange(found.size)
            np.minimum.at(first_seen, found, order)
            seen += found.size
    signature += inexact.astype(np.uint64)
    alive = np.flatnonzero(~stays)
    alive = alive[np.argsort(first_seen[alive], kind="stable")]
    keys: dict[int, list[int]] = {}
    for root in alive.tolist():
        keys.setdefault(int(signature[root]), []).append(root)
    atom_of = np.full(stays.size, STAYS)
    groups: list[ChannelGroup] = []
    taken: dict[str, int] = {}
    first = 0
    members = [np.asarray(roots) for roots in keys.values()]
    by_root = _sites_by_root([(group[0]) for group in members], tensors)
    for roots, own in zip(members, by_root, strict=True):
        atom_of[roots] = np.arange(first, first + roots.size)
        made = tuple(site for site in own if site in producers)
        groups.append(
            ChannelGroup(
                name=_unique(made[0][0].rpartition(".")[0] or made[0][0], taken),
                first=first,
                width=int(roots.size),
                sites=own,
                producers=made,
                consumers=tuple(site for site in own if site in consumers),
                multiplicity=int((tensors[made[0][0]][made[0][1]] == roots[0]).sum()),
                exact=not bool(inexact[roots[0]]),
            )
        )
        first += int(roots.size)
    return tuple(groups), atom_of


def _sites_by_root(
    wanted: list[int], tensors: Mapping[str, Mapping[int, Atoms]]
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
    tensors: Mapping[str, Mapping[int, Atoms]], atom_of: Atoms
) -> dict[str, dict[int, Atoms]]:
    result: dict[str, dict[int, Atoms]] = {}
    for name, dims in tensors.items():
        atoms = {dim: atom_of[roots] for dim, roots in dims.items()}
        cut = {dim: found for dim, found in atoms.items() if (found != STAYS).any()}
        if cut:
            result[name] = cut
    return result


def _report_frozen(
    freezes: Iterable[Freeze],
    roots: Atoms,
    tensors: Mapping[str, Mapping[int, Atoms]],
    producers: set[tuple[str, int]],
) -> tuple[Frozen, ...]:
    """Name every layer whose channels an explicit reason holds fast, once."""
    made = [(site, tensors[site[0]][site[1]]) for site in sorted(producers)]
    reports: dict[str, Frozen] = {}
    for freeze in freezes:
        if not freeze.report:
            continue
        held = np.unique(roots[freeze.ids])
        held = held[held != roots[FIXED]]
        sites = tuple(site for site, found in made if np.isin(found, held).any())
        name = sites[0][0].rpartition(".")[0] if sites else freeze.node
        if sites and name not in reports:
            reports[name] = Frozen(name, freeze.reason, freeze.where, sites)
    return tuple(reports.values())


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
