"""How much to remove from each layer: known answers, and what every allocation has to hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecli.allocation import LAYER_RULES, layer_sparsities
from prunecli.errors import GateError, InputError

SIZES, IMPORTANCE = (1000, 4000, 5000), (4.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("rule", "sparsity", "expected"),
    [
        ("inverse", 0.5, (0.172414, 0.344828, 0.689655)),
        ("inverse", 0.8, (0.333889, 0.667778, 0.999)),
        ("inverse", 0.95, (0.509, 0.999, 0.999)),
        ("proportional", 0.5, (0, 0.384615, 0.692308)),
        ("proportional", 0.8, (0.529412, 0.764706, 0.882353)),
        ("proportional", 0.95, (0.882353, 0.941176, 0.970588)),
    ],
)
def test_the_known_answers_of_both_rules(rule: str, sparsity: float, expected) -> None:
    found = layer_sparsities(SIZES, IMPORTANCE, sparsity, rule=rule)
    assert found == pytest.approx(expected, abs=1e-6)
    assert np.dot(SIZES, found) == pytest.approx(sparsity * sum(SIZES))


layers = st.lists(st.tuples(st.integers(1, 100_000), st.floats(1e-6, 1e6)), min_size=1, max_size=30)


@pytest.mark.parametrize("rule", LAYER_RULES.names())
@settings(max_examples=200, deadline=None)
@given(layers=layers, sparsity=st.floats(0, 0.99))
def test_the_total_is_met_to_one_parameter_and_more_important_layers_lose_less(
    rule: str, layers, sparsity: float
) -> None:
    sizes, importance = map(np.asarray, zip(*layers, strict=True))
    found = layer_sparsities(sizes, importance, sparsity, rule=rule, most=0.99)
    assert sizes @ found == pytest.approx(sparsity * sizes.sum(), rel=1e-9, abs=1e-6)
    assert ((found >= 0) & (found <= 0.99 + 1e-12)).all()
    assert (np.diff(found[np.argsort(importance, kind="stable")]) <= 1e-12).all()


@pytest.mark.parametrize("rule", LAYER_RULES.names())
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.999])
def test_layers_of_equal_importance_lose_the_same_share(rule: str, sparsity: float) -> None:
    found = layer_sparsities([10, 500, 31], [0.7] * 3, sparsity, rule=rule)
    assert found == pytest.approx([sparsity] * 3)


def test_the_inverse_rule_minimises_what_it_says() -> None:
    random = np.random.default_rng(0)
    sizes, importance = random.integers(1, 99, 6), random.random(6) + 0.1
    best = layer_sparsities(sizes, importance, 0.5, most=1.0)

    def loss(shares: np.ndarray) -> float:
        return float((sizes * importance * shares**2).sum() / 2)

    for _ in range(200):
        step = random.normal(size=6) * 0.01
        other = np.clip(best + step - (sizes @ step) / sizes.sum(), 0, 1)
        if abs(sizes @ (other - best)) < 1e-9:
            assert loss(best) <= loss(other) + 1e-12


def test_more_than_the_most_that_a_layer_may_lose_is_infeasible() -> None:
    with pytest.raises(GateError, match="no layer may lose more than 0") as caught:
        layer_sparsities(SIZES, IMPORTANCE, 0.95, most=0.9)
    assert caught.value.code == "INFEASIBLE_BUDGET"
    assert layer_sparsities(SIZES, IMPORTANCE, 0.9, most=0.9) == pytest.approx([0.9] * 3)


@pytest.mark.parametrize(
    ("sizes", "importance", "sparsity", "said"),
    [
        ([1, 2], [1.0], 0.5, "one importance per layer"),
        ([], [], 0.5, "one importance per layer"),
        ([1, 0], [1.0, 1.0], 0.5, "the size of layer 1 is 0"),
        ([1, 2], [1.0, 0.0], 0.5, "the importance of layer 1 is 0"),
        ([1, 2], [np.nan, 1.0], 0.5, "the importance of layer 0 is nan"),
        ([1, 2], [1.0, 1.0], -0.1, "not in"),
        ([1, 2], [1.0, 1.0], 1.0, "not in"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(sizes, importance, sparsity, said: str) -> None:
    with pytest.raises(InputError, match=said):
        layer_sparsities(sizes, importance, sparsity)


def test_an_unknown_rule_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="did you mean 'inverse'"):
        layer_sparsities(SIZES, IMPORTANCE, 0.5, rule="invers")
