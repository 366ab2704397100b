"""The network that is left: built from its trace for training, and cut again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.cutting.surgery import slices_of
from prunecli.methods.iterative.criterion import subject_of
from prunecli.methods.iterative.taps import Tap, add_taps_
from prunecli.methods.narrowing import narrowed, write_back_
from prunecli.methods.setup import narrower
from prunecli.signals.accumulate import Accumulator, follows_training

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import fx, nn

    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.methods.setup import Setup


@dataclass(frozen=True)
class Stage:
    """A network to train, which atoms of the dense one it has, and what listens to it.

    `coupling` is that of its own atoms. `accumulator` is None where training is not listened to.
    """

    keep: NDArray[np.bool_]
    coupling: CouplingGraph
    module: fx.GraphModule
    taps: Mapping[str, Tap]
    accumulator: Accumulator | None


def begin(setup: Setup, keep: NDArray[np.bool_], graph: fx.GraphModule | None = None) -> Stage:
    """Return the network that keeps these atoms, with the weights of the dense module.

    `graph` is that network where it has been built already.
    """
    network, options = setup.network, setup.options
    graph = network.graph_network(keep)[0] if graph is None else graph
    coupling = narrowed(network.coupling, keep)
    accumulator = None
    if follows_training(options.signal):
        accumulator = Accumulator(options.signal, subject_of(network, coupling, options))
    taps = add_taps_(graph, accumulator.nodes) if accumulator is not None else {}
    return Stage(keep, coupling, graph, taps, accumulator)


def write_back(setup: Setup, stage: Stage, trained: nn.Module) -> None:
    """Put what was trained into the dense module."""
    slices = slices_of(setup.network.coupling, stage.keep)
    write_back_(setup.network.model, trained.state_dict(), slices)


def cut(setup: Setup, keep: NDArray[np.bool_]) -> tuple[Stage, float]:
    """Return a narrower network, and the error of its proof.

    The dense module has to hold what was trained. Raises `ProofError` unless the dense network with
    everything masked that is not kept equals the narrower one.
    """
    graph, error = narrower(setup, keep)
    return begin(setup, keep, graph), error
