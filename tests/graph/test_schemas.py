"""What is declared of operators holds for all of torch's own: every one of them is called."""

from __future__ import annotations

import pytest
import torch

from prunecli.graph.operators import (
    READ_FOR_TYPE,
    UNTAGGED_POINTWISE,
    is_pointwise,
    operator_name,
)
from prunecli.graph.rules import RULES
from tests.support.schemas import (
    KINDS,
    SHAPE,
    arguments_for,
    called,
    functions_of_tensors,
    same,
    values,
)

NOT_FOLLOWED = {
    "as_tensor": "no part of a traced graph",
    "atleast_1d": "gives vectors and matrices as they are, but no scalars",
    "atleast_2d": "gives matrices as they are, but no vectors",
    "binomial": "draws random numbers",
    "chalf": "no part of a traced graph",
    "cpu": "no part of a traced graph",
    "data": "no part of a traced graph",
    "dequantize": "no part of a network of floats",
    "isin": "its second operand is a set",
    "random": "draws random numbers",
    "resize_as": "gives any size",
    "slice_inverse": "makes room for a slice",
    "slice_scatter": "writes into a slice",
    "squeeze_copy": "moves dimensions",
    "to_dense": "no part of a network of dense tensors",
    "transpose_copy": "moves dimensions",
    "view_copy": "moves dimensions",
}
"""Operators that act position by position where they are tried, and are frozen all the same."""


@pytest.fixture(scope="module")
def targets() -> list:
    found = list(functions_of_tensors())
    assert len(found) > 700
    return found


@pytest.fixture(scope="module")
def acting(targets) -> set[str]:
    """Return the operators that act on each position alone."""
    return {operator_name(target) for target in targets if acts_on_each_position(target)}


def test_every_operator_that_acts_on_each_position_alone_is_followed(targets, acting) -> None:
    assert {"add", "__and__", "floor_divide", "multiply", "where", "isclose"} <= acting
    assert not {"sum", "softmax", "cumsum", "sort", "index_select"} & acting
    pointwise = {operator_name(target) for target in targets if is_pointwise(target)}
    unknown = {name for name in acting - pointwise if name not in RULES}
    assert unknown == NOT_FOLLOWED.keys()


def test_what_is_declared_pointwise_is(targets, acting) -> None:
    tried = {operator_name(target) for target in targets} & UNTAGGED_POINTWISE
    assert len(tried) > 40
    assert tried <= acting


def test_operands_that_are_read_for_their_type_alone_are_declared(targets) -> None:
    """Neither other values nor another shape of such an operand changes what comes out."""
    found = {(operator_name(target), name) for target in targets
             for name in unread_operands(target)}  # fmt: skip
    assert found == set(READ_FOR_TYPE.items())


def acts_on_each_position(target) -> bool:
    """Tell whether rows and columns that change places do so in what comes out, and only that."""

    def picked(value):
        return value[[2, 0]][:, [3, 1]] if isinstance(value, torch.Tensor) else value

    for kind in KINDS:
        arguments = arguments_for(target, kind, torch.Generator().manual_seed(1))
        whole = None if arguments is None else called(target, arguments)
        if arguments is None or whole is None or any(one.shape != SHAPE for one in whole):
            continue
        part = called(target, {name: picked(value) for name, value in arguments.items()})
        return part is not None and same(part, [picked(value) for value in whole])
    return False


def unread_operands(target) -> list[str]:
    """Return the tensors among the arguments that have no say in values and shapes."""
    generator = torch.Generator().manual_seed(2)
    for kind in KINDS:
        arguments = arguments_for(target, kind, generator)
        whole = None if arguments is None else called(target, arguments)
        if arguments is None or whole is None:
            continue
        tensors = {name: value for name, value in arguments.items()
                   if isinstance(value, torch.Tensor)}  # fmt: skip
        drawn = [values(kind, generator, shape) for shape in (SHAPE, (7,), (5, 2), (3, 4, 2))]
        drawn.append(next(iter(tensors.values())))  # what is searched for is found in itself
        return [
            name
            for name, value in tensors.items()
            if all(
                is_the_same(target, whole, called(target, {**arguments, name: other}))
                for other in (*drawn, torch.zeros_like(value), torch.ones_like(value))
            )
        ]
    return []


def is_the_same(target, before: list, after: list | None) -> bool:
    """Tell whether two calls gave the same; of memory as it is, in shapes alone."""
    if after is None or "empty" not in operator_name(target):
        return after is not None and same(before, after)
    return [one.shape for one in before] == [one.shape for one in after]
