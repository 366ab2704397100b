"""From a table to the predicted time of a network at any widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.cost.alignment import default_alignment
from prunecli.cost.latency.operators import Operator, operators_of
from prunecli.cost.model import Widths, model_sizes
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from prunecli.cost.latency.table import Grid, LatencyTable
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace


@dataclass(frozen=True)
class LatencyModel:
    """Predicted milliseconds as a function of the widths; *our reconstruction* throughout.

    The measured operators are added up. What the dense network takes beside them (sums, pools,
    norms, products of activations) is the rest of the table, and shrinks as the activations do.
    Of what that comes to save, the `gain` of the table is saved.
    `sizes` gives the inputs of every operator, then the outputs; `steps` is the block of every
    group in which times change.
    """

    table: LatencyTable
    grids: tuple[Grid, ...]
    sizes: Callable[[Widths], NDArray[np.float64]]
    steps: NDArray[np.int64]

    def predict(self, widths: Widths, *, activations: float) -> float:
        """Return the milliseconds of the network with these widths and so many activations."""
        alone = self._operators(widths) + self.table.rest * activations / self.table.activations
        return self.table.dense_ms + self.table.gain * (alone - self.table.dense_ms)

    def gradient(self, widths: Widths, *, activations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the milliseconds of one channel of each group: those of a block over its width.

        `activations` are those of one more channel of each group.
        """
        now = self._operators(widths)
        found = np.zeros(len(widths))
        for group, width in enumerate(widths):
            other = np.array(widths)
            other[group] = max(width - self.steps[group], 0) if width > 0 else self.steps[group]
            found[group] = (now - self._operators(other)) / (width - other[group])
        rest = self.table.rest * activations / self.table.activations
        return np.asarray(self.table.gain * (found + rest))

    def over(self, trace: Trace, coupling: CouplingGraph) -> LatencyModel:
        """Return what the same table predicts of a network that is left of this one."""
        return bind(self.table, trace, coupling)

    def _operators(self, widths: Widths) -> float:
        inputs, outputs = self.sizes(widths).reshape(2, -1).tolist()
        found = zip(self.grids, inputs, outputs, strict=True)
        return self.table.scale * sum(grid.at(many, made) for grid, many, made in found)


def bind(table: LatencyTable, trace: Trace, coupling: CouplingGraph) -> LatencyModel:
    """Return the model of a network: that of the table, or one that was cut from it.

    Raises `InputError` (`TABLE_OF_ANOTHER_NETWORK`) where the table lacks an operator.
    """
    operators = operators_of(trace, coupling)
    dims = [item.dims[side] for side in (0, 1) for item in operators]
    steps = [
        max(1, default_alignment(group.width * group.multiplicity) // group.multiplicity)
        for group in coupling.groups
    ]
    return LatencyModel(
        table,
        tuple(find_grid(table.grids, item) for item in operators),
        model_sizes(trace, coupling, dims),
        np.asarray(steps, np.int64),
    )


def find_grid(grids: Mapping[str, tuple[Grid, ...]], operator: Operator) -> Grid:
    """Return the grid of an operator: of those of its shape that are as wide, the narrowest.

    Raises `InputError` (`TABLE_OF_ANOTHER_NETWORK`) where there is none.
    """
    wide = [
        grid
        for grid in grids.get(operator.shape.key, ())
        if operator.outputs[-1] <= grid.outputs[-1]
        and (operator.inputs[-1] <= grid.inputs[-1] or not operator.shape.groups)
    ]
    if not wide:
        raise InputError(
            "the latency table lacks an operator of this model",
            code="TABLE_OF_ANOTHER_NETWORK",
            where=f"{operator.node}: {operator.shape.key}",
            hint="name another file: a table that is missing is measured",
        )
    return min(wide, key=lambda grid: grid.inputs[-1] * grid.outputs[-1])
