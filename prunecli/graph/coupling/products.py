"""Dimensions that views read as products: along which axes they are cut, and who decides on what.

A view that reads C channels as (heads, width) lets a channel go when its head goes or when its
place inside every head goes. Where both are open, a position has two coordinates, and it stays as
long as both stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunecli.graph.coupling.ids import FIXED, Family, Ids, IdSpace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Roots = NDArray[np.int64]
"""Numbers of classes of tied ids."""

MOST_NESTED = 3
"""Views of views of views are followed; beyond that the channels stay."""


@dataclass(frozen=True)
class Resolution:
    """What every id is tied to, and which coordinates decide about it.

    `roots[id]` numbers classes of tied ids; `members[:, root]` are the classes (coordinates) that
    decide about a class: itself, or those of its head and of its place in the head. Unused entries
    are the class of what stays. `parallel` marks the classes of heads.
    """

    roots: Roots
    members: Roots
    parallel: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """The number of classes."""
        return int(self.members.shape[1])

    def of(self, axis: Ids) -> Roots:
        """Return the coordinates of every position of an axis, `[coordinates, positions]`."""
        found = self.members[:, self.roots[axis]]
        used = (found != self.roots[FIXED]).any(1)
        used[0] = True
        return np.asarray(found[used])

    def mask(self, axes: Iterable[Ids]) -> NDArray[np.bool_]:
        """Return one boolean per class: whether it decides about any of these ids."""
        mask = np.zeros(self.count, np.bool_)
        for axis in axes:
            mask[self.members[:, self.roots[axis]]] = True
        return mask


def resolve(ids: IdSpace) -> Resolution:
    """Join tied ids and decide along which axes products of dimensions are cut.

    An axis along which a matrix product works in parallel (heads) is cut whenever it can be; of the
    other axes of a product only the one with most choices, and the rest stay whole.
    """
    roots = connected(ids.count, ids.ties)
    ties, products = list(ids.ties), []
    for family, active in zip(ids.families, _choose_axes(ids, roots), strict=True):
        axes, ids.where = tuple(family.axes[at] for at in active), family.where
        if not axes:
            ids.freeze(family.whole, "no dimension of this view can be cut alone", report=False)
        elif len(axes) == 1:
            ties.append((family.whole, axes[0]))
        else:
            products.append(Family(family.whole, axes, family.where))
        for at in set(range(len(family.axes))) - set(active):
            ids.freeze(
                family.axes[at], "is cut along another dimension of the same view", report=False
            )
    roots = connected(ids.count, ties)
    while more := _same_coordinates(products, roots):
        ties.extend(more)
        roots = connected(ids.count, ties)
    members = _members(ids, products, roots)
    parallel = np.zeros(members.shape[1], np.bool_)
    for axis in ids.parallel:
        parallel[roots[axis]] = True
    return Resolution(roots, members, parallel)


def connected(count: int, pairs: Sequence[tuple[Ids, Ids]]) -> Roots:
    """Return the number of the class of every id."""
    first = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    second = np.concatenate([pair[1] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    return _components(count, first, second)


def _components(count: int, first: Ids, second: Ids) -> Roots:
    """Return the number of the component of every node of a graph with these edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(first.size, np.bool_), (first, second)), shape=(count, count))
    _, labels = connected_components(edges, directed=False)
    return np.asarray(labels, np.int64)


def frozen_roots(ids: IdSpace, roots: Roots) -> NDArray[np.bool_]:
    """Return one boolean per class: whether something in it must stay."""
    stays = np.zeros(int(roots.max()) + 1, np.bool_)
    stays[roots[FIXED]] = True
    for freeze in ids.frozen:
        stays[roots[freeze.ids]] = True
    return stays


def _choose_axes(ids: IdSpace, roots: Roots) -> list[tuple[int, ...]]:
    """Return the axes of each family along which it is cut, those of heads first.

    Axes that share a channel are one axis, under one label.
    """
    stays = frozen_roots(ids, roots)
    heads = np.zeros(stays.size, np.bool_)
    for axis in ids.parallel:
        heads[roots[axis]] = True
    names = _name_axes(ids.families, roots)
    choices: dict[int, int] = {}
    parallel: set[int] = set()
    for family, labels in zip(ids.families, names, strict=True):
        for axis, label in zip(family.axes, labels, strict=True):
            alive = np.unique(roots[axis][~stays[roots[axis]]])
            choices[label] = max(choices.get(label, 0), alive.size)
            if heads[alive].any():
                parallel.add(label)
    active = {label for label in parallel if choices[label] > 1}
    for label in sorted(choices, key=lambda name: (-choices[name], name)):
        rivals = {other for labels in names if label in labels for other in labels} - {label}
        if choices[label] > 1 and not (rivals - parallel) & active:
            active.add(label)
    return [
        tuple(
            sorted(
                (at for at, label in enumerate(labels) if label in active),
                key=lambda at: (labels[at] not in parallel, at),
            )
        )
        for labels in names
    ]


def _name_axes(families: list[Family], roots: Roots) -> list[tuple[int, ...]]:
    """Give axes that share a channel the same number."""
    axes = [axis for family in families for axis in family.axes]
    if not axes:
        return []
    found = [np.unique(roots[axis]) for axis in axes]
    size = int(roots.max()) + 1
    row = np.repeat(np.arange(len(axes)), [item.size for item in found])
    column = np.concatenate(found) + len(axes)
    total = size + len(axes)
    labels = _components(total, row, column)
    numbers = iter(labels[: len(axes)].tolist())
    return [tuple(next(numbers) for _ in family.axes) for family in families]


def _same_coordinates(products: list[Family], roots: Roots) -> list[tuple[Ids, Ids]]:
    """Return the ties still missing between coordinates of positions that are tied themselves."""
    ties: list[tuple[Ids, Ids]] = []
    for rank in {len(product.axes) for product in products}:
        alike = [product for product in products if len(product.axes) == rank]
        whole = roots[np.concatenate([product.whole for product in alike])]
        order = np.argsort(whole, kind="stable")
        same = whole[order][1:] == whole[order][:-1]
        for at in range(rank):
            axis = np.concatenate([product.axes[at] for product in alike])[order]
            first, second = axis[:-1][same], axis[1:][same]
            differ = roots[first] != roots[second]
            if differ.any():
                ties.append((first[differ], second[differ]))
    return ties


def _members(ids: IdSpace, products: list[Family], roots: Roots) -> Roots:
    """Return the coordinates of every class, down to classes that are no products themselves."""
    count, stays = int(roots.max()) + 1, roots[FIXED]
    most = max((len(product.axes) for product in products), default=1)
    direct = np.full((most, count), stays)
    direct[0] = np.arange(count)
    is_product = np.zeros(count, np.bool_)
    for product in products:
        at = roots[product.whole]
        if most > len(product.axes) and is_product[at].any():
            ids.freeze(product.whole, "two views read these channels differently", report=False)
        is_product[at] = True
        for row, axis in enumerate(product.axes):
            direct[row, at] = roots[axis]
    members = direct
    for _ in range(MOST_NESTED):
        if not is_product[members].any():
            break
        members = np.concatenate([direct[:, row] for row in members])
    open_still = is_product[members].any(0)
    if open_still.any():
        loose = np.flatnonzero(open_still[roots])
        ids.freeze(loose, "views of views in too many levels", report=False)
    return members
