"""The errors of weights that fit nothing, or not what was said: what differs, what is nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.architectures.fingerprint import Shapes, describe_difference
from prunecli.architectures.lookup import (
    expected_shapes,
    fingerprint_of,
    match_all,
    match_timm,
    nearest,
)
from prunecli.checkpoint.parts import parts_of
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_NAME_IT = (
    "name it: --arch resnet50, --arch timm/NAME, or --arch mypackage.nets:make_net with "
    "--arch-arg name=value"
)
_SUGGESTED, _LOOKED_AT = 3, 9


def fits_none(spelled: Iterable[Shapes], *, where: str) -> InputError:
    """Return the error for weights that fit no architecture, with how far the nearest are."""
    ranked = [(nearest(shapes), shapes) for shapes in _parts(spelled)]
    near, shapes = max(ranked, key=lambda pair: pair[0][0][0] if pair[0] else 0.0)
    told = [
        describe_difference(shapes, expected_shapes(name, shapes), name=name) for _, name in near
    ]
    nearest_text = "\n  ".join(["nearest:", *told]) if told else "no known architecture is similar"
    others = [name for _, name in nearest(shapes, timm=True) if name not in {n for _, n in near}]
    also = f"; of timm's models {', '.join(others)} are similar" if others else ""
    return InputError(
        f"these {len(shapes)} tensors fit no architecture that is known by name; {nearest_text}",
        code="UNKNOWN_ARCHITECTURE",
        where=where,
        hint=_NAME_IT + also,
    )


def mismatch(name: str, spelled: Iterable[Shapes], expected: Shapes, *, where: str) -> InputError:
    """Return the error for weights that are not what was said, with what they rather are."""
    parts = _parts(spelled)
    found = min(parts, key=lambda shapes: _distance(shapes, expected))
    near = _suggestions(parts, besides=name)
    instead = f"; or is it one of {', '.join(near)}?" if near else ""
    return InputError(
        f"the weights do not fit {describe_difference(found, expected, name=name)}",
        code="ARCHITECTURE_MISMATCH",
        where=where,
        hint="give the right --arch, and what its constructor needs with --arch-arg name=value "
        f"(a class count: --arch-arg num_classes=10){instead}",
    )


def _suggestions(parts: list[Shapes], *, besides: str) -> list[str]:
    """Return the names that fit best, those that fit exactly first."""
    exact = [match.name for shapes in parts for match in (*match_all(shapes), *match_timm(shapes))]
    scored = [pair for shapes in parts for pair in nearest(shapes, count=_LOOKED_AT, timm=True)]
    scored.sort(key=lambda pair: -pair[0])
    names: dict[str, str] = {}
    for name in [*exact, *(name for _, name in scored)]:
        names.setdefault(fingerprint_of(name).digest, name)  # one of those of equal shapes
    return [name for name in names.values() if name != besides][:_SUGGESTED]


def _parts(spelled: Iterable[Shapes]) -> list[Shapes]:
    """Return the shapes below the prefixes that all or most names share, under every spelling."""
    found: list[Shapes] = []
    for shapes in spelled:
        insides = [part.inside for part in parts_of(shapes)]
        found += [inside for inside in insides if len(inside) > len(shapes) / 2]
    return found


def _distance(found: Shapes, expected: Shapes) -> int:
    """Count the tensors that only one side has, or that have another shape."""
    return len(found.items() ^ expected.items())
