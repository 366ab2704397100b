"""`prune --granularity weight` on files: read, zero weights, prove the file itself, write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from prunecli.artefacts import (
    check_output,
    dense_architecture,
    example_input,
    provenance,
    read,
    state_of,
)
from prunecli.checkpoint import save
from prunecli.errors import InputError, ProofError
from prunecli.granularity import WEIGHT
from prunecli.history import cut_step
from prunecli.instantiate import instantiate
from prunecli.network import Clock
from prunecli.network_data import check_labels, measuring_batches, scoring_batches
from prunecli.options import LoadOptions
from prunecli.report import Verified
from prunecli.sparse.masks import layers_of, sparsity_report, with_all_names
from prunecli.sparse.pruning import (
    masked_tensors,
    output_difference,
    same_bits,
    sparsify_network,
)
from prunecli.sparse.saliency import weight_signal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from prunecli.budget import Budget
    from prunecli.checkpoint import Checkpoint
    from prunecli.options import FinetuneOptions
    from prunecli.pipeline.job import Job
    from prunecli.report import PruneReport, SparsityReport
    from prunecli.sparse.layers import WeightLayer


def sparsify(job: Job) -> PruneReport:
    """Zero weights of the network in `model`, prove what was written, and give it its name.

    The file holds the kept weights and their places alone. Nothing is written for a dry run, nor
    when anything fails.
    """
    target = job.target
    if not job.dry_run:
        check_output(target, inputs=[job.model], overwrite=job.overwrite)
    clock = Clock(job.progress)
    sparsity = weight_sparsity(job.budget)
    signal = weight_signal(job.options.signal)
    with clock.stage("load"):
        loaded = read(job.model, job.load)
        network = instantiate(loaded.checkpoint)
    checkpoint = loaded.checkpoint
    if job.data is not None:
        check_labels(network, checkpoint, job.data)
    needed = signal is not None and signal.needs_data
    result = sparsify_network(
        network,
        [example_input(checkpoint.input)],
        sparsity=sparsity,
        options=job.options,
        masks=checkpoint.masks,
        batches=scoring_batches(checkpoint, job.data, job.options, job.progress, wanted=needed),
        measured_on=measuring_batches(checkpoint, job.data, job.options, job.progress),
        dry_run=job.dry_run,
        architecture=str(dense_architecture(checkpoint)),
        progress=job.progress,
    )
    report = dataclasses.replace(
        result.report,
        seconds={**clock.seconds, **result.report.seconds},
        warnings=(*loaded.warnings, *result.report.warnings),
    )
    if job.dry_run or result.model is None:
        return report
    assert report.sparsity is not None
    facts = {"sparsity": {**report.plan, "weights": report.sparsity.weights}}
    sparse = dataclasses.replace(
        checkpoint,
        tensors=state_of(result.model),
        masks=dict(result.masks),
        metadata=provenance(
            loaded,
            job.model,
            command=job.command,
            seed=job.options.seed,
            facts=facts,
            step=cut_step(report, command=job.command, source=job.model.name),
        ),
    )
    with clock.stage("save"):
        dense = None if job.options.repair else checkpoint
        verified = save_proven(sparse, target, dense=dense)
    sizes = dataclasses.replace(
        report.sparsity, bytes_before=job.model.stat().st_size, bytes_after=target.stat().st_size
    )
    return dataclasses.replace(
        report,
        output=target,
        verified=verified,
        sparsity=sizes,
        seconds={**report.seconds, "save": clock.seconds["save"]},
    )


def weight_sparsity(budget: Budget | None) -> float | None:
    """Return the share of weights to zero; raise `InputError` for a budget of something else."""
    if budget is None:
        return None
    for limit in budget.limits:
        if limit.kind != "channels" or limit.fraction is None:
            raise InputError(
                f"--{limit.kind} is no budget for single weights: the network keeps its shape",
                code="BAD_BUDGET",
                hint="give the share of the weights to zero, such as --sparsity 0.9",
            )
    fraction = budget.limits[0].fraction
    assert fraction is not None
    return 1.0 - fraction


def save_proven(
    checkpoint: Checkpoint, target: Path, *, dense: Checkpoint | None = None
) -> Verified:
    """Write a sparse checkpoint once what is read back from the file is what was to be written.

    That are its tensors bit by bit; those of `dense`, the network before, times the masks too; and
    the outputs of the network that the file gives. Raises `ProofError` (`STORED_WRONG`).
    """
    errors: list[float] = []

    def check(path: Path) -> None:
        trusted = LoadOptions(architecture=checkpoint.architecture.name)
        stored = read(path, trusted).checkpoint
        expected = masked_tensors(checkpoint.tensors, checkpoint.masks)
        if dense is not None:
            expected.update(masked_tensors(dense.tensors, checkpoint.masks))
        wrong = [
            name
            for name, value in expected.items()
            if name not in stored.tensors or not same_bits(value, stored.tensors[name])
        ]
        example = example_input(checkpoint.input)
        with torch.no_grad():
            reference = instantiate(dataclasses.replace(checkpoint, tensors=expected))(example)
            errors.append(output_difference(instantiate(stored)(example), reference))
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
