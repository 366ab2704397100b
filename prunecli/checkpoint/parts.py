"""Find the parts of a state dict that are known architectures, wherever they stand in it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from prunecli.architectures.fingerprint import Shapes, contained, signature, word_hashes
from prunecli.architectures.lookup import fingerprint_of, likely, match_all, match_timm
from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import ARCHITECTURES, build_dense
from prunecli.checkpoint.fitting import Fit, Part, fit
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MOST_PARTS = 64
_SHARE = 0.05  # of the tensors of a file: smaller parts are no network of their own
_LEAST, _SURE = 0.6, 0.85  # of an architecture's names, to be compared with it and to be it
_TRIED = 6


def parts_of(shapes: Shapes, activation: str | None = None) -> Iterator[Part]:
    """Yield the parts below every prefix, the largest first, and of equal ones the outer first."""
    counts = Counter(
        name[: at + 1] for name in shapes for at, sign in enumerate(name) if sign == "."
    )
    large = [prefix for prefix, count in counts.items() if count >= _SHARE * len(shapes)]
    ordered = sorted(large, key=lambda prefix: (-counts[prefix], len(prefix)))
    yield from (Part(shapes, prefix, activation) for prefix in ["", *ordered[:_MOST_PARTS]])


def find_parts(shapes: Shapes, activation: str | None = None) -> list[list[Fit]]:
    """Return how parts of a state dict are architectures: of each part all that fit it equally.

    No part lies in another.
    """
    found: list[list[Fit]] = []
    for part in parts_of(shapes, activation):
        if any(part.prefix.startswith(fits[0].prefix) for fits in found):
            continue
        fits = _best(part)
        if fits:
            found.append(fits)
    return found


def fit_named(
    shapes: Shapes, name: str, given: Mapping[str, Any], activation: str | None = None
) -> list[Fit]:
    """Return how parts of a state dict are the named architecture, no part in another."""
    module = build_dense(ArchitectureRef(name, given))
    expected = set(module.state_dict())
    children = [child for child, _ in module.named_children()]
    found: list[Fit] = []
    for part in parts_of(shapes, activation):
        here = part.inside
        alike = sum(key in expected for key in here)
        if any(part.prefix.startswith(other.prefix) for other in found):
            continue
        one = fit(part, name, given) if alike >= len(expected) / 4 else None
        if one is None and _is_numbered(here):
            one = _with_children(part, children, name, given)
        if one is not None:
            found.append(one)
    return found


def _best(part: Part) -> list[Fit]:
    inside = part.inside
    matches = match_all(inside) or match_timm(inside)
    if matches:  # all of it, to the last tensor
        exact = [fit(part, match.name, {}) for match in matches]
        return _most([one for one in exact if one is not None])
    words = word_hashes(signature(inside, {}))
    for timm in (False, True):
        near = likely(words, timm=timm, least=_LEAST)
        fits = [_tried(part, one.name, sure=one.share >= _SURE) for one in near[:_TRIED]]
        best = _most([one for one in fits if one is not None])
        if best:
            return best
    return _numbered(part, inside)


def _tried(part: Part, name: str, *, sure: bool) -> Fit | None:
    """Compare with a likely architecture; one that cannot be built here matters if it is sure."""
    try:
        return fit(part, name, {})
    except InputError as error:
        if error.code == "MISSING_EXTRA" and not sure:
            return None
        if error.code == "FACTORY_FAILED":
            return None
        raise


def _most(fits: list[Fit]) -> list[Fit]:
    most = max((one.matched for one in fits), default=0)
    return [one for one in fits if one.matched == most]


def _numbered(part: Part, inside: Shapes) -> list[Fit]:
    """Compare the layers of a sequence with the children of networks, in their order.

    That is what `nn.Sequential(*list(model.children())[:-1])` makes of names.
    """
    if not _is_numbered(inside):
        return []
    fits = []
    for entry in ARCHITECTURES:
        known = fingerprint_of(entry.name)
        if not 0.8 * known.size <= len(inside) <= known.size:
            continue
        named = _under_children(inside, known.children)
        if contained(known.sketch, word_hashes(signature(named, {}))) < _LEAST:
            continue
        one = _with_children(part, known.children, entry.name, {})
        if one is not None:
            fits.append(one)
    return _most(fits)


def _is_numbered(inside: Shapes) -> bool:
    return bool(inside) and all(name.partition(".")[0].isdigit() for name in inside)


def _under_children(inside: Shapes, children: Sequence[str]) -> Shapes:
    """Return shapes with the names of `children` for their numbers; nothing beyond the last."""
    parts = ((*name.partition("."), shape) for name, shape in inside.items())
    return {
        f"{children[int(number)]}.{rest}": shape
        for number, _, rest, shape in parts
        if int(number) < len(children)
    }


def _with_children(
    part: Part, children: Sequence[str], name: str, given: Mapping[str, Any]
) -> Fit | None:
    """Compare a part whose first names are numbers of the `children` of an architecture."""
    renamed = {}
    for old in part.shapes:
        number, _, rest = old[len(part.prefix) :].partition(".")
        if old.startswith(part.prefix) and int(number) >= len(children):
            return None
        inside = old.startswith(part.prefix)
        renamed[f"{part.prefix}{children[int(number)]}.{rest}" if inside else old] = old
    shapes = {new: part.shapes[old] for new, old in renamed.items()}
    one = fit(dataclasses.replace(part, shapes=shapes), name, given)
    if one is None:
        return None
    return dataclasses.replace(
        one,
        renamed={renamed[new]: own for new, own in one.renamed.items()},
        left_out=tuple(renamed[new] for new in one.left_out),
        dropped=tuple(renamed[new] for new in one.dropped),
        assumed=(
            f"the numbers in {part.prefix}* are taken as the children of {name}",
            *one.assumed,
        ),
    )
