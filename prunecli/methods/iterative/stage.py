"""The network that is left: built from its trace, in training, and cut again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.cutting.surgery import slices_of
from prunecli.methods.iterative.criterion import subject_of
from prunecli.methods.iterative.narrowing import cut_optimizer_state_, narrowed, write_back_
from prunecli.methods.iterative.taps import Tap, add_taps_
from prunecli.proof.prove import prove
from prunecli.signals.accumulate import Accumulator, follows_training
from prunecli.training.finetune import start_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import fx

    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.data import ImageSet
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions
    from prunecli.training.loop import Recipe, Run


@dataclass(frozen=True)
class Setup:
    """Everything about a run that stays the same.

    `network` is the dense one: what is trained is written back into its module at every removal,
    so that each cut is one from the dense network. `rehearsed` are the widths that the budget took
    before any training, `held` says why groups stay whole, and `folder` is where the state is kept
    (None: nowhere).
    """

    network: Network
    budget: Budget
    options: PruneOptions
    recipe: Recipe
    held_out: ImageSet
    rehearsed: Widths
    held: Mapping[str, str]
    folder: Path | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A network in training, which atoms of the dense one it has, and what listens to it.

    `coupling` is that of its own atoms. `accumulator` is None where training is not listened to.
    """

    keep: NDArray[np.bool_]
    coupling: CouplingGraph
    run: Run
    taps: Mapping[str, Tap]
    accumulator: Accumulator | None


def begin(setup: Setup, keep: NDArray[np.bool_], graph: fx.GraphModule | None = None) -> Stage:
    """Put the network that keeps these atoms into training, from the weights of the dense module.

    `graph` is that network where it has been built already.
    """
    network, options = setup.network, setup.options
    graph = network.graph_network(keep)[0] if graph is None else graph
    coupling = narrowed(network.coupling, keep)
    accumulator = None
    if follows_training(options.signal):
        accumulator = Accumulator(options.signal, subject_of(network, coupling, options))
    taps = add_taps_(graph, accumulator.nodes) if accumulator is not None else {}
    setup.recipe.accelerator.free_memory()  # it would hold on to the networks before
    return Stage(keep, coupling, start_run(graph, setup.recipe), taps, accumulator)


def write_back(setup: Setup, slim: Stage) -> None:
    """Put what was trained into the dense module."""
    slices = slices_of(setup.network.coupling, slim.keep)
    write_back_(setup.network.model, slim.run.bare.state_dict(), slices)


def cut(setup: Setup, slim: Stage, keep: NDArray[np.bool_]) -> tuple[Stage, float]:
    """Return the narrower network with the optimiser's state, and the error of its proof.

    The dense module has to hold what was trained. Raises `ProofError` unless the dense network with
    everything masked that is not kept equals the narrower one.
    """
    network = setup.network
    graph, _ = network.graph_network(keep)
    verified = prove(
        network.model,
        graph,
        slices_of(network.coupling, keep),
        keep,
        trace=network.trace,
        coupling=network.coupling,
        seed=setup.options.seed,
    )
    narrower = begin(setup, keep, graph)
    narrower.run.epoch, narrower.run.step = slim.run.epoch, slim.run.step
    cut_optimizer_state_(
        (slim.run.bare, slim.run.optimizer),
        (narrower.run.bare, narrower.run.optimizer),
        slices_of(slim.coupling, keep[slim.keep]),
    )
    return narrower, verified.max_rel_error
