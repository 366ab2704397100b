"""The graph that is left of a traced network after a cut, as a module that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.cutting.surgery import cut_tensor, slices_of
from prunecli.cutting.temperature import tempered_nodes
from prunecli.graph.emitting.emit import emit
from prunecli.graph.emitting.program import build

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, fx

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace


def cut_graph(
    trace: Trace,
    coupling: CouplingGraph,
    keep: NDArray[np.bool_],
    tensors: Mapping[str, Tensor],
    *,
    of_module: bool = False,
) -> tuple[fx.GraphModule, dict[str, Any]]:
    """Return the graph that keeps these atoms over the dense `tensors`, and its program.

    With `of_module`, it is what the network's own module must be after the cut: attention takes its
    temperature from the width that is left, and the factors of the plan make up for that. Raises
    what `emit` and `build` raise.
    """
    program = emit(trace, coupling, keep)
    if of_module:
        tempered = tempered_nodes(trace, coupling, keep)
        for node in program["nodes"]:
            if node["name"] in tempered:
                node["kwargs"].pop("scale", None)
    slices = slices_of(coupling, keep)
    left = {name: cut_tensor(value, slices.get(name, {})) for name, value in tensors.items()}
    return build(program, left), program
