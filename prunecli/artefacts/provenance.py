"""Artefacts on disk: read with the user's choices, say where they come from, keep others safe."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from prunecli.architectures.reference import GRAPH, ArchitectureRef
from prunecli.artefacts.history import cut_step, step_to_json
from prunecli.artefacts.origin import moved, place_of
from prunecli.checkpoint import Checkpoint, Loaded, load
from prunecli.checkpoint.selection import selection_of
from prunecli.cutting.surgery import cut_tensor
from prunecli.files import limited
from prunecli.options import LoadOptions
from prunecli.plan import PruningPlan, compose, compose_factors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from prunecli.pruning.road import PruneResult
    from prunecli.report import RunStep


def read(path: Path, options: LoadOptions | None = None) -> Loaded:
    """Load a checkpoint with the choices of `options`."""
    options = options or LoadOptions()
    with limited(memory=options.max_file_memory):
        return load(
            path,
            architecture=options.architecture,
            architecture_args=options.architecture_args,
            weights=options.weights,
            selection=selection_of(options),
            input_size=options.input_size,
            input_shapes=options.input_shapes,
            mean=options.mean,
            std=options.std,
            allow_pickle=options.allow_pickle,
        )


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network by name, detached, on the CPU."""
    return {name: value.detach().cpu() for name, value in model.state_dict().items()}


def cut_checkpoint(
    loaded: Loaded, result: PruneResult, source: Path, *, target: Path, command: str
) -> Checkpoint:
    """Return the artefact of a cut: slim tensors, the plan from the dense network, provenance.

    It is read from `source` and goes to `target`.
    """
    assert result.model is not None
    checkpoint, tensors = loaded.checkpoint, state_of(result.model)
    architecture, graph = checkpoint.architecture, checkpoint.graph
    if result.program is not None:
        architecture, graph = ArchitectureRef(GRAPH), result.program
    return dataclasses.replace(
        checkpoint,
        architecture=architecture,
        tensors=tensors,
        plan=_from_dense(checkpoint.plan, result.plan),
        graph=graph,
        metadata=provenance(
            loaded,
            source,
            target=target,
            command=command,
            seed=result.plan.seed,
            step=cut_step(result.report, command=command, source=source.name),
        ),
        masks=cut_masks(checkpoint.masks, tensors, result.plan),
    )


def cut_masks(
    masks: Mapping[str, Tensor], tensors: Mapping[str, Tensor], plan: PruningPlan
) -> dict[str, Tensor]:
    """Return the masks of zeroed weights after a cut, as far as the zeros are still zero.

    A repair by least squares fits whole layers anew: those have no mask afterwards.
    """
    cut = {
        name: cut_tensor(mask, plan.slices.get(name, {}))
        for name, mask in masks.items()
        if name in tensors
    }
    return {
        name: mask
        for name, mask in cut.items()
        if mask.shape == tensors[name].shape and not bool(tensors[name][~mask].any())
    }


def _from_dense(first: PruningPlan | None, second: PruningPlan) -> PruningPlan:
    """Return the plan that leads from the dense network to the second cut in one step."""
    if first is None:
        return second
    keep = {
        name: tuple(first.keep[name][index] for index in kept)
        if name in first.keep and max(kept) < len(first.keep[name])
        else kept
        for name, kept in second.keep.items()
    }
    return dataclasses.replace(
        second,
        keep=keep,
        slices=compose(first, second),
        attributes={
            path: {**first.attributes.get(path, {}), **second.attributes.get(path, {})}
            for path in {**first.attributes, **second.attributes}
        },
        factors=compose_factors(first, second),
        cost_before=first.cost_before,
        fingerprint=first.fingerprint,
        deleted={**first.deleted, **second.deleted},
        writes={**first.writes, **second.writes},
    )


def provenance(
    loaded: Loaded,
    source: Path,
    *,
    target: Path,
    command: str,
    seed: int,
    facts: Mapping[str, Any] | None = None,
    step: RunStep | None = None,
) -> dict[str, Any]:
    """Return where an artefact at `target` comes from, as JSON; `step` says what came of this one.

    Places of files are relative to the folder of the artefact (`prunecli.artefacts.origin`).
    """
    before = loaded.checkpoint.metadata
    told = {} if step is None else step_to_json(step)
    own = {"command": command, "input": source.name, "sha256": loaded.sha256, "seed": seed}
    own |= place_of(source, target.parent)
    return {
        **before,
        **(facts or {}),
        "dense": before.get("dense") or loaded.checkpoint.architecture.to_json(),
        "history": [
            *moved(before.get("history", []), source.parent, target.parent),
            {**told, **own},
        ],
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what an artefact depends on."""
    names = ("prunecli", "torch", "torchvision", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
