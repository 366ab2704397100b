"""One operator over tensors that have channels on every dimension, cut at random.

The oracle is torch itself: an operator that channels pass through must give, on what is left of its
operands, what is left of what it gives on all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunecli.cost.model import model_cost
from prunecli.cutting.attributes import mirrored_attributes
from prunecli.cutting.surgery import cut_tensor, slices_of
from prunecli.cutting.temperature import temperature_factors
from prunecli.graph.blocks import find_blocks
from prunecli.graph.coupling.groups import couple
from prunecli.graph.emitting.emit import constant_name, emit
from prunecli.graph.emitting.program import build
from prunecli.graph.tracing.trace import trace
from prunecli.signals.places import read_taps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

LETTERS = "abcdefg"


class OneOperator(nn.Module):
    """An operation over tensors of these shapes; a factor of its own makes each dimension."""

    def __init__(self, operation: Callable[..., object], shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.operation, self.shapes = operation, shapes
        generator = torch.Generator().manual_seed(0)
        self.factors = nn.ParameterDict(
            {
                f"{at}_{dim}": nn.Parameter(torch.randn(size, 2, generator=generator))
                for at, shape in enumerate(shapes)
                for dim, size in enumerate(shape)
            }
        )

    def forward(self, x: Tensor) -> object:
        return self.operation(*(self._made(at, shape) + 0 * x.sum() for at, shape in
                                enumerate(self.shapes)))  # fmt: skip

    def _made(self, at: int, shape: Sequence[int]) -> Tensor:
        if not shape:
            return torch.tensor(0.7)
        letters = LETTERS[: len(shape)]
        equation = ",".join(f"{letter}z" for letter in letters) + "->" + letters
        return torch.einsum(equation, *(self.factors[f"{at}_{dim}"] for dim in range(len(shape))))


def check_one(operation: Callable[..., object], *shapes: Sequence[int], seed: int = 0) -> int:
    """Cut what can be cut around an operation; return how many channels went.

    Asserts that the rebuilt graph gives what is left of the dense outputs.
    """
    model, x = OneOperator(operation, shapes).eval(), torch.randn(2, 2)
    traced = trace(model, (x,))
    (output,) = (node for node in traced.graph.nodes if node.op == "output")
    outputs, output.args = output.args, ((),)  # outputs would hold all that reaches them
    coupling = couple(traced)
    output.args = outputs
    model_cost(traced, coupling, model)
    find_blocks(traced)
    read_taps(traced, coupling)
    keep = _some(coupling, seed)
    temperature_factors(traced, coupling, keep)
    mirrored_attributes(model, traced, coupling, keep)
    stored = {
        **dict(model.named_parameters()),
        **{constant_name(name): value for name, value in traced.constants.items()},
    }
    slices = slices_of(coupling, keep)
    cut = {name: cut_tensor(value.detach(), slices.get(name, {})) for name, value in stored.items()}
    slim = build(emit(traced, coupling, keep), cut)
    with torch.no_grad():
        dense, left = pytree.tree_leaves(model(x)), pytree.tree_leaves(slim(x))
    for node, before, after in zip(pytree.tree_leaves(outputs), dense, left, strict=True):
        expected = before
        for dim, kept in _kept(node, traced, coupling, keep).items():
            expected = expected.index_select(dim, kept)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    return int((~keep).sum())


def _some(coupling: CouplingGraph, seed: int) -> np.ndarray:
    """Keep some channels of each group: of those that no sum and no statistic runs over."""
    generator = np.random.default_rng(seed)
    keep = np.ones(coupling.atom_count, np.bool_)
    for group in coupling.groups:
        if group.exact and not group.contracted and group.width > 1:
            count = generator.integers(1, group.width)
            keep[group.first + generator.permutation(group.width)[:count]] = False
    return keep


def _kept(
    node: object, traced: Trace, coupling: CouplingGraph, keep: np.ndarray
) -> Mapping[int, Tensor]:
    found = coupling.values.get(node.name, {})
    return {dim: torch.as_tensor(coupling.kept(atoms, keep)) for dim, atoms in found.items()}
