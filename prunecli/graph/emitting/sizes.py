"""What is left of every dimension of a traced graph after a cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from prunecli.graph.constants import constant_value
from prunecli.graph.operators import concrete, operator_name, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace


class Sizes:
    """Answers how many positions of a dimension are left, and which."""

    def __init__(self, trace: Trace, coupling: CouplingGraph, keep: NDArray[np.bool_]) -> None:
        self.batch = trace.batch
        self.integers = trace.integers
        self._keep = keep
        self._coupling = coupling
        self._names = trace.tensors

    def atoms(self, node: fx.Node, dim: int) -> NDArray[np.int64] | None:
        """Return the atoms of one dimension, None where nothing can be cut."""
        return self._of(node).get(dim)

    def touches(self, node: fx.Node) -> bool:
        """Tell whether a call has to do with channels that can be cut, or with a computed size."""
        return any(
            bool(self._of(value)) or not isinstance(value.meta.get("val"), Tensor)
            for value in (node, *node.all_input_nodes)
        )

    def _of(self, node: fx.Node) -> Mapping[int, NDArray[np.int64]]:
        if node.name in self._names:
            return self._coupling.tensors.get(self._names[node.name], {})
        return self._coupling.values.get(node.name, {})

    def is_stored(self, node: fx.Node) -> bool:
        """Tell whether a node is a parameter or buffer of the network."""
        return node.name in self._names

    def constant(self, value: Any) -> Tensor | None:
        """Return the value of a node that depends on stored integers alone, else None."""
        return constant_value(value, self.integers)

    def value(self, size: Any) -> int:
        """Return what a computed size gives in the cut network, for one input."""
        if isinstance(size, int):
            return size
        if operator_name(size.target) == "sym_size":
            return self.left(size.args[0], size.args[1])
        if getattr(size.target, "__module__", "") == "_operator":
            return int(size.target(*(self.value(argument) for argument in size.args)))
        return concrete(size.meta["val"], self.batch)

    def left(self, node: fx.Node, dim: int) -> int:
        """Return the size of a dimension after the cut."""
        size = shape_of(node, self.batch)
        return self.count(node, dim % len(size), 0, size[dim])

    def count(self, node: fx.Node, dim: int, start: int, end: int) -> int:
        """Return how many of the positions `start` to `end` are left."""
        atoms = self.atoms(node, dim)
        if atoms is None:
            return end - start
        return int(self._coupling.kept(atoms[:, start:end], self._keep).size)

    def kept(self, node: fx.Node, dim: int) -> list[int] | None:
        """Return the positions of a dimension that are left, None where it loses nothing."""
        atoms = self.atoms(node, dim)
        if atoms is None:
            return None
        kept = self._coupling.kept(atoms, self._keep)
        return kept.tolist() if kept.size < atoms.shape[1] else None

    def is_cut(self, node: fx.Node, dim: int) -> bool:
        """Tell whether a dimension loses anything."""
        return self.left(node, dim) != shape_of(node, self.batch)[dim]
