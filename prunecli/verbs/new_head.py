"""A model that was read, with a new classifier for the classes of a data set."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.architectures.reference import GRAPH
from prunecli.architectures.registry import build_dense
from prunecli.artefacts.provenance import state_of
from prunecli.errors import InputError

if TYPE_CHECKING:
    from prunecli.verbs.opened import Opened


def with_head_for(opened: Opened, classes: tuple[str, ...], *, seed: int) -> tuple[Opened, str]:
    """Return a model with an untrained classifier for `classes`, and the path of that layer.

    Its architecture says so as plain data (`prunecli.architectures.changes`): what is written of it
    is read, pruned and exported as any other. Raises `InputError` (`NO_HEAD`, `NEW_HEAD_REFUSED`).
    """
    from prunecli.training import with_new_head

    checkpoint = opened.checkpoint
    _check_replaceable(opened)
    model, path = with_new_head(opened.model, checkpoint.input, classes=len(classes), seed=seed)
    head = model.get_submodule(path)
    described = {
        "layer": "linear",
        "inputs": head.in_features,
        "outputs": len(classes),
        **({} if head.bias is not None else {"bias": False}),
    }
    architecture = checkpoint.architecture
    changed = dataclasses.replace(architecture, changes={**architecture.changes, path: described})
    build_dense(changed, device="meta")  # what cannot be built again is no model to train
    trained = dataclasses.replace(
        checkpoint,
        architecture=changed,
        tensors=state_of(model),
        classes=classes,
        metadata={**checkpoint.metadata, "dense": changed.to_json()},
    )
    loaded = dataclasses.replace(opened.loaded, checkpoint=trained)
    return dataclasses.replace(opened, loaded=loaded, model=model), path


def _check_replaceable(opened: Opened) -> None:
    checkpoint = opened.checkpoint
    reasons = {
        "it has been pruned": checkpoint.plan is not None or bool(checkpoint.masks),
        "it is a graph without the class of the model": checkpoint.architecture.name == GRAPH,
        "your own code makes its classifier": checkpoint.architecture.is_factory,
    }
    reason = next((text for text, holds in reasons.items() if holds), None)
    if reason is not None:
        raise InputError(
            f"--new-head cannot change this model: {reason}",
            code="NEW_HEAD_REFUSED",
            hint="put the new classifier on the original model, then prune; of your own code: make "
            "the model with as many classes (--arch-arg num_classes=7)",
        )
