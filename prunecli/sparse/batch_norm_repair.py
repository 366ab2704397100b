"""Estimate batch norm anew after weights were zeroed, and measure what that gives back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from prunecli.errors import InputError
from prunecli.evaluation.scores import score_on
from prunecli.progress import Progress, Step
from prunecli.repair import check_repair, count_calibration
from prunecli.report import RepairReport, RepairStep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.evaluation.batches import Images
    from prunecli.network.traced import Network

BatchNorm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the base of every batch norm
POSSIBLE = "bn"


def check_norms_repair(names: Sequence[str], batches: object) -> None:
    """Raise `InputError` for a repair that would fill zeroed weights again, or without images."""
    check_repair(names, batches)
    for name in names:
        if name != POSSIBLE:
            raise InputError(
                f"the repair {name} is one of cut channels: it would fill zeroed weights again",
                code="REPAIR_OF_CHANNELS",
                hint=f"use --repair {POSSIBLE}, or prunecli finetune, which keeps the zeros",
            )


@torch.no_grad()
def repair_norms_(
    model: nn.Module,
    network: Network,
    *,
    images: Images,
    progress: Progress,
) -> RepairReport:
    """Set the statistics of every batch norm to those over the calibration images, in place.

    Every batch is normalised by its own statistics meanwhile; their means over batches are kept.
    Source: Li et al. 2020 (EagleEye). Both networks are in evaluation mode, and stay so.
    """
    batches, judged_on = images.scored_on, images.judged_on
    assert batches is not None
    assert judged_on is not None
    count = count_calibration(batches)
    dense, cut = score_on(network.model, judged_on), score_on(model, judged_on)
    start = time.perf_counter()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, BatchNorm) and module.track_running_stats
    ]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    done = 0
    for inputs, _ in batches():
        model(inputs)
        done += len(inputs)
        progress(Step("repair bn", done, count))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
    seconds = round(time.perf_counter() - start, 3)
    after = score_on(model, judged_on)
    steps = (
        RepairStep("dense", dense.loss, dense.accuracy, 0.0, 0),
        RepairStep("cut", cut.loss, cut.accuracy, 0.0, 0),
        RepairStep(POSSIBLE, after.loss, after.accuracy, seconds, len(norms)),
    )
    return RepairReport(steps, count, images.measured)
