"""Which known architecture a state dict is: by all its names and shapes, or by most of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from prunecli.architectures.fingerprint import (
    SHORT_SKETCH,
    SKETCH,
    Fingerprint,
    Shapes,
    contained,
    digest,
    fingerprint,
    has_free_dims,
    order_digest,
    read_arguments,
    shapes_of,
    signature,
    similarity,
    sketch,
)
from prunecli.architectures.index import known_fingerprint, timm_index, timm_models
from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import ARCHITECTURES, architecture_of, build_dense

if TYPE_CHECKING:
    from collections.abc import Mapping

_NEAR = 0.1  # below this two networks share little more than words like `classifier`


@dataclass(frozen=True)
class Match:
    """An architecture that a state dict fits exactly, and the arguments read off its shapes."""

    name: str
    arguments: Mapping[str, int]


def match_all(shapes: Shapes, *, name: str | None = None) -> list[Match]:
    """Return every registered architecture that the shapes fit exactly, or `name` alone."""
    lines: dict[Any, str] = {}
    found = []
    for known_name in ARCHITECTURES.names() if name is None else (name,):
        auxiliary, known = architecture_of(known_name).auxiliary, fingerprint_of(known_name)
        key = (auxiliary, tuple(known.free.items()))
        kept = without_auxiliary(shapes, auxiliary)
        if not has_free_dims(kept, known.free):
            continue
        if key not in lines:
            lines[key] = digest(signature(kept, known.free))
        if lines[key] != known.digest:
            continue
        arguments = read_arguments(kept, known.free)
        if arguments is not None:
            found.append(Match(known_name, arguments))
    return found


def match_timm(shapes: Shapes) -> list[Match]:
    """Return every model of timm that the shapes fit exactly; needs no timm."""
    lines: dict[Any, str] = {}
    found = []
    for row in timm_index():
        known = row.fingerprint
        if known.size != len(shapes) or not has_free_dims(shapes, known.free):
            continue
        key = tuple(known.free.items())
        if key not in lines:
            lines[key] = digest(signature(shapes, known.free))
        arguments = read_arguments(shapes, known.free) if lines[key] == known.digest else None
        if arguments is not None:
            found += [Match(names[0], arguments) for names in row.names]
    return found


def aliases_of(name: str) -> tuple[str, ...]:
    """Return all names of what computes as the named architecture does, itself included."""
    row = timm_models(name)
    groups = () if row is None else row.names
    return next((group for group in groups if name in group), (name,))


def match_order(shapes: Shapes) -> list[str]:
    """Return the architectures whose shapes these are one by one, whatever they are called."""
    key = order_digest(shapes.values())
    own = [e.name for e in ARCHITECTURES if fingerprint_of(e.name).order == key]
    rows = (row for row in timm_index() if row.fingerprint.order == key)
    return own + [names[0] for row in rows for names in row.names]


@dataclass(frozen=True)
class Likeness:
    """How much of an architecture stands in a state dict: an estimate, 0 to 1."""

    name: str
    share: float
    size: int

    @property
    def rank(self) -> float:
        """The more of a larger architecture, the higher."""
        return self.share**2 * self.size


def likely(words: frozenset[int], *, timm: bool, least: float) -> list[Likeness]:
    """Return the architectures of which `least` a share stands in a state dict, best first.

    `words` are `word_hashes` of its signature.
    """
    known: list[tuple[str, Fingerprint]] = (
        [(names[0], row.fingerprint) for row in timm_index() for names in row.names]
        if timm
        else [(entry.name, fingerprint_of(entry.name)) for entry in ARCHITECTURES]
    )
    found = [Likeness(name, contained(f.sketch, words), f.size) for name, f in known]
    return sorted((one for one in found if one.share >= least), key=lambda one: -one.rank)


def nearest(shapes: Shapes, *, count: int = 3, timm: bool = False) -> list[tuple[float, str]]:
    """Return the known architectures that share most with the shapes, best first.

    The numbers are estimated Jaccard indices of the names and shapes, 0 to 1.
    """
    rows = [(e.name, e.value.auxiliary, fingerprint_of(e.name), SKETCH) for e in ARCHITECTURES]
    if timm:
        rows += [(row.names[0][0], (), row.fingerprint, SHORT_SKETCH) for row in timm_index()]
    sketches: dict[Any, tuple[int, ...]] = {}
    scored = []
    for name, auxiliary, known, limit in rows:
        kept = without_auxiliary(shapes, auxiliary)
        free = {a: pairs for a, pairs in known.free.items() if has_free_dims(kept, {a: pairs})}
        key = (auxiliary, tuple(free.items()))
        if key not in sketches:
            sketches[key] = sketch(signature(kept, free))
        scored.append((similarity(sketches[key], known.sketch, limit=limit), name))
    scored.sort(key=lambda pair: -pair[0])
    return [pair for pair in scored[:count] if pair[0] >= _NEAR]


def expected_shapes(name: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return what `name` would hold, with the arguments that `shapes` lets one read."""
    known = fingerprint_of(name)
    arguments: dict[str, int] = {}
    for argument, pairs in known.free.items():
        if has_free_dims(shapes, {argument: pairs}):
            arguments |= read_arguments(shapes, {argument: pairs}) or {}
    return shapes_of(build_dense(ArchitectureRef(name, arguments)).state_dict())


@cache
def fingerprint_of(name: str) -> Fingerprint:
    """Return the fingerprint from the index, or of a freshly built network where it has none."""
    known = known_fingerprint(name)
    return compute_fingerprint(name) if known is None else known


def compute_fingerprint(name: str) -> Fingerprint:
    """Return the fingerprint of `name` by building it without memory."""
    variants = architecture_of(name).variants
    reference = {argument: values[0] for argument, values in variants.items()}
    network = build_dense(ArchitectureRef(name, reference))
    others = {
        argument: build_dense(ArchitectureRef(name, {**reference, argument: values[1]}))
        for argument, values in variants.items()
    }
    known = fingerprint(
        shapes_of(network.state_dict()),
        {argument: shapes_of(other.state_dict()) for argument, other in others.items()},
    )
    return replace(known, children=tuple(child for child, _ in network.named_children()))


def without_auxiliary(shapes: Shapes, prefixes: tuple[str, ...]) -> Shapes:
    """Return the shapes without the tensors whose names start with one of `prefixes`."""
    if not prefixes:
        return shapes
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}
