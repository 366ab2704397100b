"""Repair a network right after the cut, from images alone: no labels, no training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.cutting.surgery import cut_tensor, slices_of
from prunecli.cutting.temperature import scaled
from prunecli.errors import GraphError, InputError
from prunecli.evaluation.outputs import image_losses
from prunecli.progress import Progress, silent
from prunecli.repair.layers import layers_of
from prunecli.repair.steps import NOTHING, REPAIRS, Done, Patient
from prunecli.report import RepairReport, RepairStep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.evaluation.outputs import Batches
    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan

__all__ = ["REPAIRS", "check_repair", "repair_"]


def check_repair(names: Sequence[str], batches: object) -> None:
    """Raise `InputError` for a repair that does not exist, or that has no images to look at."""
    for name in names:
        REPAIRS.get(name)
    if names and batches is None:
        raise InputError(
            f"the repair {', '.join(names)} looks at images, and none were given",
            code="REPAIR_NEEDS_DATA",
            hint="add --data DIR; labels are used for the report alone",
        )


def repair_(
    slim: nn.Module,
    network: Network,
    plan: PruningPlan,
    keep: NDArray[np.bool_],
    *,
    names: Sequence[str],
    batches: Callable[[], Batches],
    measured_on: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> RepairReport:
    """Repair the cut network `slim` in place by `names`, in their order, and measure each step.

    `batches` yields the calibration images; loss and accuracy are those of `measured_on`, or else
    of the calibration images. Raises `GraphError` for a network that was only recorded.
    """
    images = _check(network, batches)
    with torch.no_grad():
        dense, graph = (_graph(network, mask) for mask in (np.ones_like(keep), keep))
        before = {name: value.clone() for name, value in graph.state_dict().items()}
        layers = layers_of(network, graph, keep)
        patient = Patient(dense, graph, before, layers, batches, images, progress)
        scores = measured_on or batches
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
    return RepairReport(
        steps=tuple(steps),
        images=images,
        measured="held_out" if measured_on is not None else "calibration",
    )


def _check(network: Network, batches: Callable[[], Batches]) -> int:
    """Return the number of images; raise for a network or for data that cannot be used."""
    if network.trace.recorded:
        raise GraphError(
            "a network of which one forward was recorded cannot be repaired: "
            f"{network.trace.recorded}",
            code="RECORDED_ONLY",
            hint="cut it without --repair",
        )
    images = sum(len(inputs) for inputs, _ in batches())
    if not images:
        raise InputError(
            "there are no images to repair the network on",
            code="REPAIR_NEEDS_DATA",
            hint="give a data set with images to train on",
        )
    if len(network.trace.inputs) != 1:
        raise GraphError(
            f"a network with {len(network.trace.inputs)} inputs cannot be repaired on images",
            code="SEVERAL_INPUTS",
            hint="cut it without --repair",
        )
    return images


def _graph(network: Network, keep: NDArray[np.bool_]) -> fx.GraphModule:
    graph, _ = network.graph_network(keep)
    assert isinstance(graph, fx.GraphModule)
    return graph


def _step(
    name: str,
    network: nn.Module,
    batches: Callable[[], Batches],
    *,
    done: Done = NOTHING,
    seconds: float = 0.0,
) -> RepairStep:
    loss, right, count = 0.0, 0, 0
    for images, labels in batches():
        logits = _first(network(images)).float()
        if logits.dim() != 2 or labels.dim() != 1:
            raise InputError(
                f"loss and accuracy need logits [images, classes]; this network's first output is "
                f"{list(logits.shape)}",
                code="NOT_A_CLASSIFIER",
                hint="cut it without --repair",
            )
        loss += float(image_losses(logits, labels).sum())
        right += int((logits.argmax(-1) == labels).sum())
        count += len(labels)
    if not count:
        raise InputError(
            "there are no images to score the repair on",
            code="NO_IMAGES",
            hint="leave measured_on out, or let it yield images",
        )
    return RepairStep(name, loss / count, right / count, seconds, done.layers, done.skipped)


def _first(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output


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
