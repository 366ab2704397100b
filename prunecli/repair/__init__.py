"""Repair a network right after the cut, from images alone: no labels, no training."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.cutting.surgery import cut_tensor, slices_of
from prunecli.cutting.temperature import scaled
from prunecli.errors import GraphError, InputError
from prunecli.evaluation.batches import BatchSource, Images, count_images
from prunecli.evaluation.scores import score_on, sum_of_images
from prunecli.preflight.pruning import check_repair_images
from prunecli.progress import Progress, silent
from prunecli.repair.layers import layers_of
from prunecli.repair.lockstep import MEMORY_LIMIT
from prunecli.repair.steps import NOTHING, REPAIRS, Done, Patient
from prunecli.report import RepairReport, RepairStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan

__all__ = [
    "REPAIRS",
    "check_repair",
    "check_repairable",
    "count_calibration",
    "repair_",
    "repair_warnings",
]


def check_repair(names: Sequence[str], batches: object) -> None:
    """Raise `InputError` for a repair that does not exist, or that has no images to look at."""
    for name in names:
        REPAIRS.get(name)
    if batches is None:
        check_repair_images(names)


def count_calibration(batches: BatchSource) -> int:
    """Return the number of images; raise `InputError` where there is none to repair on."""
    images = count_images(batches)
    if not images:
        raise InputError(
            "there are no images to repair the model on",
            code="REPAIR_NEEDS_DATA",
            hint="give a data set with images to train on",
        )
    return images


def repair_(
    slim: nn.Module,
    network: Network,
    plan: PruningPlan,
    keep: NDArray[np.bool_],
    *,
    names: Sequence[str],
    images: Images,
    progress: Progress = silent,
) -> RepairReport:
    """Repair the cut network `slim` in place by `names`, in their order, and measure each step.

    `images.scored_on` gives the calibration images; loss and accuracy are those of
    `images.judged_on`. Raises `GraphError` for a network that was only recorded.
    """
    batches, scores = images.scored_on, images.judged_on
    assert batches is not None
    assert scores is not None
    count = _check(network, batches)
    with torch.no_grad():
        dense, graph = _dense_graph(network), _graph(network, keep)
        before = {name: value.clone() for name, value in graph.state_dict().items()}
        layers = layers_of(network, graph, keep)
        patient = Patient(dense, graph, before, layers, batches, count, progress)
        steps = [_step("dense", dense, scores), _step("cut", graph, scores)]
        for name in names:
            start = time.perf_counter()
            done = REPAIRS.get(name)(patient)
            seconds = round(time.perf_counter() - start, 3)
            steps.append(_step(name, graph, scores, done=done, seconds=seconds))
        after = graph.state_dict()
        changed = {
            name: value for name, value in after.items() if not torch.equal(value, before[name])
        }
        _write_(slim, changed, network, plan, keep)
    return RepairReport(steps=tuple(steps), images=count, measured=images.measured)


def repair_warnings(report: RepairReport) -> list[str]:
    """Say where a repair looked at fewer images than there are."""
    return [
        f"{step.name} repaired the layers with the largest activations on {step.fewest:,} of "
        f"{report.images:,} images: as many as fit into {MEMORY_LIMIT / 2**30:g} GiB"
        for step in report.steps
        if step.fewest is not None and step.fewest < report.images
    ]


def _check(network: Network, batches: BatchSource) -> int:
    """Return the number of images; raise for a network or for data that cannot be used."""
    check_repairable(network)
    return count_calibration(batches)


def check_repairable(network: Network) -> None:
    """Raise `GraphError` for a network that no repair can run on images."""
    if network.trace.recorded:
        raise GraphError(
            "a model of which one forward was recorded cannot be repaired: "
            f"{network.trace.recorded}",
            code="RECORDED_ONLY",
            hint="cut it without --repair",
        )
    if len(network.trace.inputs) != 1:
        raise GraphError(
            f"a model with {len(network.trace.inputs)} inputs cannot be repaired on images",
            code="SEVERAL_INPUTS",
            hint="cut it without --repair",
        )


def _graph(network: Network, keep: NDArray[np.bool_]) -> fx.GraphModule:
    graph, _ = network.graph_network(keep)
    assert isinstance(graph, fx.GraphModule)
    return graph


def _dense_graph(network: Network) -> fx.GraphModule:
    """Return the graph of the user's own network, with the blocks that a cut has deleted."""
    whole = network.whole or network
    return _graph(whole, np.ones(whole.coupling.atom_count, np.bool_))


def _step(
    name: str,
    network: nn.Module,
    batches: BatchSource,
    *,
    done: Done = NOTHING,
    seconds: float = 0.0,
) -> RepairStep:
    found = score_on(network, batches, summed=sum_of_images)
    return RepairStep(
        name, found.loss, found.accuracy, seconds, done.layers, done.skipped, done.fewest
    )


def _write_(
    slim: nn.Module,
    changed: Mapping[str, Tensor],
    network: Network,
    plan: PruningPlan,
    keep: NDArray[np.bool_],
) -> None:
    """Write what a repair changed in the graph into the cut network itself."""
    slices = slices_of(network.coupling, keep)
    places: dict[str, Tensor] = {
        **dict(slim.named_parameters(remove_duplicate=False)),
        **dict(slim.named_buffers(remove_duplicate=False)),
    }
    for name, value in changed.items():
        factors = plan.factors.get(name, ())
        if not factors:
            places[name].copy_(value)
            continue
        # In its own module the temperature of attention stands in the weights.
        ones = scaled(torch.ones_like(network.tensors[name]), factors)
        places[name].copy_(value * cut_tensor(ones, slices.get(name, {})))
