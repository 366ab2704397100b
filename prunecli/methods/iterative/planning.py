"""What an iterative run is going to do: its options checked, its training, its size and time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.methods.iterative.criterion import criterion_of
from prunecli.methods.iterative.removal import removals_left
from prunecli.methods.training_options import training_of
from prunecli.progress import Step
from prunecli.report import IterativeReport
from prunecli.training.devices import precision_of
from prunecli.training.loop import epoch_batches
from prunecli.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from prunecli.data import ImageSet
    from prunecli.methods.setup import Setup
    from prunecli.options import FinetuneOptions, PruneOptions
    from prunecli.training.recipe import Recipe

GENTLE = 0.5
"""Part of an optimiser's own learning rate, which is a peak, that is held throughout."""


def check_iterative(options: PruneOptions) -> None:
    """Raise `InputError` for options that an iterative cut cannot follow."""
    if options.repair:
        raise InputError(
            "a repair refits a model to its dense outputs, and this one has been trained since",
            code="BAD_OPTION",
            where="--repair",
            hint="leave --repair out, or use --method one-shot",
        )
    per_removal, updates = options.training.remove_per_step, options.training.updates
    for name, value in (("remove-per-step", per_removal), ("updates", updates)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is below 1", code="BAD_OPTION")
    training_options(options)  # which refuses what cannot be trained with


def training_options(options: PruneOptions) -> FinetuneOptions:
    """Return how the updates train; raise `InputError` for what cannot be trained with."""
    own = options.training
    rate = OPTIMIZERS.get(own.optimizer).learning_rate * GENTLE if own.lr is None else own.lr
    return training_of(options, lr=rate, schedule=own.schedule or "constant")


def planned_for(setup: Setup, recipe: Recipe, held_out: ImageSet) -> IterativeReport:
    """Return what the run will do, and report it with the time that one update takes now."""
    own, dense = setup.options.training, setup.network.cost.dense_widths
    removals = removals_left(
        0, channels=int((dense - setup.rehearsed).sum()), per_removal=own.remove_per_step
    )
    updates = (removals + 1) * own.updates
    # A forward alone takes a third of an update; all of them get faster on the way.
    scoring = (removals + 2) * len(held_out) / own.batch_size / 3
    seconds = (updates + scoring) * _seconds_per_update(setup, recipe)
    recipe.progress(Step(f"about {removals} removals, {updates} updates, {seconds:.0f} s", 0))
    return IterativeReport(
        planned_removals=removals,
        planned_updates=updates,
        planned_seconds=round(seconds, 1),
        criterion=criterion_of(setup.options.signal),
        precision=precision_of(recipe.accelerator),
    )


def _seconds_per_update(setup: Setup, recipe: Recipe) -> float:
    """Return the time of a forward and backward of the dense network, the second of two."""
    network = setup.network
    graph, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    graph.to(recipe.accelerator.device).train()
    positions = epoch_batches(
        len(recipe.images), recipe.options.batch_size, seed=recipe.options.seed, epoch=0
    )[:1]
    spent = 0.0
    for images, labels in (*recipe.images.gather(positions), *recipe.images.gather(positions)):
        start = time.perf_counter()
        placed = images.to(recipe.accelerator.device)
        with recipe.accelerator.autocast():
            taught = recipe.task.teach(placed)
            output = graph(normalise(placed, recipe.input))
        loss = recipe.task.judge(output, labels.to(placed.device), taught).loss
        loss.backward()  # type: ignore[no-untyped-call]
        float(loss.detach())
        spent = time.perf_counter() - start
    return spent
