"""Read a network whose tensors have other names, by the shapes in their order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunecli.architectures.fingerprint import Shapes


@dataclass(frozen=True)
class Ordered:
    """Names of a file by those of an architecture, matched one by one.

    `doubtful` are pairs of neighbours in the architecture that could be the other way round: they
    have the same shapes, and nothing in the names of the file tells which is which.
    """

    renamed: Mapping[str, str]
    doubtful: tuple[tuple[str, str], ...]


def match_by_order(found: Shapes, expected: Shapes) -> Ordered | None:
    """Return which tensor is which where the shapes are the same one by one; None otherwise.

    A tensor has to be called by the same last word (`weight`, `running_mean`) on both sides.
    """
    if len(found) != len(expected):
        return None
    pairs = list(zip(found.items(), expected.items(), strict=True))
    if any(here != there for (_, here), (_, there) in pairs):
        return None
    if any(_leaf(name) != _leaf(own) for (name, _), (own, _) in pairs):
        return None
    renamed = {name: own for (name, _), (own, _) in pairs}
    return Ordered(renamed, tuple(_doubtful(renamed, expected)))


def _doubtful(renamed: Mapping[str, str], expected: Shapes) -> list[tuple[str, str]]:
    """Return the layers beside one another that have the same shapes and no telling names."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in expected.items():
        layers.setdefault(name.rpartition(".")[0], {})[_leaf(name)] = shape
    called = {own.rpartition(".")[0]: name.rpartition(".")[0] for name, own in renamed.items()}
    by_holder: dict[str, list[str]] = {}
    for layer in layers:
        by_holder.setdefault(layer.rpartition(".")[0], []).append(layer)
    doubtful = []
    for siblings in by_holder.values():
        for one, two in _equal_neighbours(siblings, layers):
            if not _are_told_apart(one, two, called):
                doubtful.append((one, two))
    return doubtful


def _equal_neighbours(
    siblings: Sequence[str], layers: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> list[tuple[str, str]]:
    """Return the pairs of siblings with the same shapes, each with the next one like it."""
    shapes = {layer: tuple(sorted(layers[layer].items())) for layer in siblings}
    many = Counter(shapes.values())
    pairs: list[tuple[str, str]] = []
    last: dict[Any, str] = {}
    for layer in siblings:
        key = shapes[layer]
        if many[key] > 1:
            if key in last:
                pairs.append((last[key], layer))
            last[key] = layer
    return pairs


def _are_told_apart(one: str, two: str, called: Mapping[str, str]) -> bool:
    """Tell whether the file's own names have these two in that order, by number or by word."""
    first, second = (_last(called[layer]) for layer in (one, two))
    if first == second:  # they stand in different places there
        return called[one] != called[two]
    numbers = [int(digits) if (digits := _digits(word)) else None for word in (first, second)]
    if None not in numbers and _letters(first) == _letters(second):
        return numbers[0] < numbers[1]  # type: ignore[operator]
    return (first, second) == (_last(one), _last(two))


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


_last = _leaf


def _digits(word: str) -> str:
    return "".join(sign for sign in word if sign.isdigit())


def _letters(word: str) -> str:
    return "".join(sign for sign in word if not sign.isdigit())
