"""Densities of weight tensors from their shapes: known answers, and what must hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecli.allocation import erdos_renyi_densities, uniform_plus_densities, whole_counts
from prunecli.errors import GateError, InputError

SHAPES = [(64, 3, 3, 3), (128, 64, 3, 3), (10, 128)]
SIZES = np.asarray([math.prod(shape) for shape in SHAPES])


def test_the_known_answers_of_erdos_renyi() -> None:
    assert SIZES.tolist() == [1728, 73728, 1280]
    assert [sum(shape) for shape in SHAPES] == [73, 198, 138]
    found = erdos_renyi_densities(SHAPES, 0.9)
    assert found == pytest.approx([0.9967, 0.0634, 1.0], abs=5e-5)
    assert found * SIZES == pytest.approx([1722.3, 4671.3, 1280], abs=0.05)
    assert whole_counts(SIZES, found).sum() == round(0.1 * SIZES.sum())


def test_before_a_layer_becomes_dense_erdos_renyi_is_as_in_the_notes() -> None:
    # round 1 of the notes: one factor for all, which would keep twice the last layer
    dims = np.asarray([73, 198, 138])
    factor = 0.1 * SIZES.sum() / dims.sum()
    assert factor * dims / SIZES == pytest.approx([0.7926, 0.0504, 2.0228], abs=5e-5)


shapes = st.lists(
    st.lists(st.integers(1, 64), min_size=1, max_size=4).map(tuple), min_size=2, max_size=8
)


@settings(max_examples=200, deadline=None)
@given(shapes=shapes, sparsity=st.floats(0, 0.99))
def test_densities_keep_what_was_asked_and_follow_the_shapes(shapes, sparsity: float) -> None:
    sizes = np.asarray([math.prod(shape) for shape in shapes], float)
    found = erdos_renyi_densities(shapes, sparsity)
    assert sizes @ found == pytest.approx((1 - sparsity) * sizes.sum())
    assert ((found > 0) & (found <= 1)).all()
    ratios = [sum(shape) for shape in shapes] / sizes
    below = found < 1 - 1e-12
    if below.any():
        scale = found[below] / ratios[below]
        assert scale == pytest.approx(np.full(below.sum(), scale[0]))
        assert (ratios[~below] * scale[0] >= 1 - 1e-9).all()


@settings(max_examples=200, deadline=None)
@given(shapes=shapes, sparsity=st.floats(0, 0.99))
def test_uniform_plus_keeps_the_first_and_a_fifth_of_the_last(shapes, sparsity: float) -> None:
    sizes = np.asarray([math.prod(shape) for shape in shapes], float)
    total = (1 - sparsity) * sizes.sum()
    try:
        found = uniform_plus_densities(shapes, sparsity)
    except GateError:
        assert sizes[0] + 0.2 * sizes[-1] > total
        return
    assert found[0] == 1
    assert found[-1] >= 0.2
    assert np.ptp(found[1:-1]) == 0 if len(shapes) > 2 else True
    assert sizes @ found == pytest.approx(total)


def test_uniform_plus_says_how_much_can_go() -> None:
    with pytest.raises(GateError, match="is out of reach: with the first layer whole") as caught:
        uniform_plus_densities(SHAPES, 0.99)
    lowest = float(caught.value.hint.split()[2])
    uniform_plus_densities(SHAPES, lowest)


@pytest.mark.parametrize("rule", [erdos_renyi_densities, uniform_plus_densities])
@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_a_sparsity_that_means_nothing_is_refused(rule, sparsity: float) -> None:
    with pytest.raises(InputError, match="is not in"):
        rule(SHAPES, sparsity)
