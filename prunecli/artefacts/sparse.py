"""Sparse checkpoints: what they hold, and the proof that a file gives it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from prunecli.architectures.examples import example_arguments
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import (
    read,
)
from prunecli.checkpoint import save
from prunecli.errors import ProofError
from prunecli.options import LoadOptions
from prunecli.options.granularity import WEIGHT
from prunecli.proof.bits import same_bits
from prunecli.report import Verified
from prunecli.sparse.masks import layers_of, sparsity_report, with_all_names
from prunecli.sparse.proof import masked_tensors, output_difference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from prunecli.checkpoint import Checkpoint
    from prunecli.options import FinetuneOptions
    from prunecli.report import SparsityReport
    from prunecli.sparse.layers import WeightLayer


def save_proven(
    checkpoint: Checkpoint, target: Path, *, dense: Checkpoint | None = None
) -> Verified:
    """Write a sparse checkpoint once what is read back from the file is what was to be written.

    That are its tensors bit by bit; those of `dense`, the network before, times the masks too; and
    the outputs of the network that the file gives. Raises `ProofError` (`STORED_WRONG`).
    """
    errors: list[float] = []

    def check(path: Path) -> None:
        own = checkpoint.architecture
        trusted = LoadOptions(architecture=own.name, architecture_args=own.kwargs)
        stored = read(path, trusted).checkpoint
        expected = masked_tensors(checkpoint.tensors, checkpoint.masks)
        if dense is not None:
            expected.update(masked_tensors(dense.tensors, checkpoint.masks))
        wrong = [
            name
            for name, value in expected.items()
            if name not in stored.tensors or not same_bits(value, stored.tensors[name])
        ]
        example = example_arguments(checkpoint.input)
        with torch.no_grad():
            reference = instantiate(dataclasses.replace(checkpoint, tensors=expected))(*example)
            errors.append(output_difference(instantiate(stored)(*example), reference))
        if wrong or errors[0] > 0 or stored.masks.keys() != checkpoint.masks.keys():
            raise ProofError(
                f"the file does not give back what was stored: {len(wrong)} tensors differ, the "
                f"outputs by {errors[0]:.1e}",
                code="STORED_WRONG",
                where=wrong[0] if wrong else str(target),
                hint="nothing was written; please report this",
            )

    save(checkpoint, target, check=check)
    return Verified("stored and restored == dense x mask", errors[0])


def keeping_zeros(
    checkpoint: Checkpoint,
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    layers: Sequence[WeightLayer],
    options: FinetuneOptions,
) -> Checkpoint:
    """Return a trained checkpoint with the masks that it was trained under.

    `layers` are those whose weights were zeroed along the way, if any. Raises `ProofError`
    (`MASK_MISMATCH`) where a masked weight is not zero.
    """
    wrong = [name for name, mask in masks.items() if bool(checkpoint.tensors[name][~mask].any())]
    if wrong:
        raise ProofError(
            f"{len(wrong)} tensors have masked weights that are not zero after training",
            code="MASK_MISMATCH",
            where=wrong[0],
            hint="nothing was written; please report this",
        )
    metadata = dict(checkpoint.metadata)
    if layers:
        found = sparsity_report(layers, masks, granularity=options.granularity, point="")
        metadata["sparsity"] = {
            "granularity": options.granularity,
            "point": MAGNITUDE,
            "allocation": options.allocation,
            "schedule": options.sparsity_schedule,
            "sparsity": found.sparsity,
            "weights": found.weights,
            "keep": {row.name: row.kept for row in found.layers},
        }
    every = with_all_names(model, masks)
    return dataclasses.replace(checkpoint, masks=every, metadata=metadata)


MAGNITUDE = "weight/value/l1/none"
"""What training zeroes the weights by."""


def stored_sparsity(
    checkpoint: Checkpoint, *, before: Path | None = None, after: Path | None = None
) -> SparsityReport | None:
    """Return the zeros of a sparse checkpoint by layer; None for one that has no masks."""
    if not checkpoint.masks:
        return None
    facts = checkpoint.metadata.get("sparsity")
    told = facts if isinstance(facts, Mapping) else {}
    layers = layers_of(instantiate(checkpoint), checkpoint.masks, facts)
    found = sparsity_report(
        layers,
        checkpoint.masks,
        granularity=str(told.get("granularity", WEIGHT)),
        point=str(told.get("point", "")),
    )
    return dataclasses.replace(
        found,
        bytes_before=None if before is None else before.stat().st_size,
        bytes_after=None if after is None or not after.exists() else after.stat().st_size,
    )
