"""Dimensions that views read as products: what decides about each position."""

from __future__ import annotations

import numpy as np

from prunecli.graph.coupling.ids import IdSpace
from prunecli.graph.coupling.products import Resolution, resolve


def split(ids: IdSpace, heads: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a dimension that a view reads as heads times width, and the two axes."""
    whole = ids.fresh(heads * width)
    axes = ids.split(whole, (heads, width))
    return whole, *axes


def coordinates(found: Resolution, axis: np.ndarray) -> list[set[int]]:
    """Return the classes that decide about each position, without the one that stays."""
    stays = found.roots[0]
    return [set(column.tolist()) - {stays} for column in found.of(axis).T]


def test_a_position_goes_with_its_head_or_with_its_place_in_every_head() -> None:
    ids = IdSpace()
    whole, heads, width = split(ids, 2, 3)
    ids.mark_parallel(heads)
    found = resolve(ids)
    expected = [{h, w} for h in found.roots[heads].tolist() for w in found.roots[width].tolist()]
    assert coordinates(found, whole) == expected


def test_without_parallel_work_only_the_axis_with_most_choices_is_cut() -> None:
    ids = IdSpace()
    whole, groups, width = split(ids, 2, 3)
    found = resolve(ids)
    assert coordinates(found, whole) == [{root} for root in found.roots[width].tolist()] * 2
    assert any(np.isin(groups, freeze.ids).all() for freeze in ids.frozen)


def test_positions_that_are_tied_tie_their_coordinates() -> None:
    """As rotary embeddings do: the two halves of a head go together."""
    ids = IdSpace()
    whole, heads, width = split(ids, 2, 4)
    ids.mark_parallel(heads)
    ids.tie(whole[:2], whole[2:4])
    found = resolve(ids)
    assert found.roots[width[0]] == found.roots[width[2]] != found.roots[width[1]]
    assert found.roots[heads[0]] != found.roots[heads[1]]


def test_two_views_of_one_dimension_have_the_same_axes() -> None:
    ids = IdSpace()
    whole = ids.fresh(6)
    assert ids.split(whole, (2, 3)) == ids.split(whole, (2, 3))
    assert len(ids.families) == 1


def test_what_freezes_a_position_freezes_its_head_and_its_place() -> None:
    ids = IdSpace()
    whole, heads, width = split(ids, 2, 3)
    ids.mark_parallel(heads)
    ids.freeze(whole[:1], "stays")
    found = resolve(ids)
    stays = found.mask(freeze.ids for freeze in ids.frozen)
    assert stays[found.roots[heads[0]]]
    assert stays[found.roots[width[0]]]
    assert not stays[found.roots[heads[1]]]


def test_a_view_of_a_view_is_followed_to_its_last_coordinates() -> None:
    ids = IdSpace()
    inner, heads, width = split(ids, 2, 3)
    ids.mark_parallel(heads)
    outer = ids.fresh(12)
    first, second = ids.split(outer, (2, 6))
    ids.mark_parallel(first)
    ids.tie(second, inner)
    found = resolve(ids)
    assert coordinates(found, outer)[0] == {
        int(found.roots[axis[0]]) for axis in (first, heads, width)
    }


def test_merged_heads_are_the_same_product_again() -> None:
    ids = IdSpace()
    whole, heads, width = split(ids, 2, 3)
    ids.mark_parallel(heads)
    merged = ids.merge((heads, width), (2, 3))
    found = resolve(ids)
    assert coordinates(found, merged) == coordinates(found, whole)
