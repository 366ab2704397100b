"""Estimate batch norm anew after weights were zeroed, and measure what that gives back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from prunecli.errors import InputError
from prunecli.evaluation.outputs import first_tensor
from prunecli.progress import Progress, Step
from prunecli.repair import check_repair
from prunecli.report import RepairReport, RepairStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prunecli.evaluation.outputs import Batches
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
    batches: Callable[[], Batches],
    measured_on: Callable[[], Batches] | None = None,
    progress: Progress,
) -> RepairReport:
    """Set the statistics of every batch norm to those over `batches`, in place, in one pass.

    Every batch is normalised by its own statistics meanwhile; their means over batches are kept.
    Source: Li et al. 2020 (EagleEye). Both networks are in evaluation mode, and stay so.
    """
    scores = measured_on or batches
    steps = [_scored("dense", network.model, scores), _scored("cut", model, scores)]
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
    images = 0
    for inputs, _ in batches():
        model(inputs)
        images += len(inputs)
        progress(Step("repair bn", images))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.eval()
    seconds = round(time.perf_counter() - start, 3)
    step = _scored(POSSIBLE, model, scores, seconds=seconds, layers=len(norms))
    measured = "held_out" if measured_on is not None else "calibration"
    return RepairReport((*steps, step), images, measured)


def _scored(
    name: str,
    model: nn.Module,
    batches: Callable[[], Batches],
    *,
    seconds: float = 0.0,
    layers: int = 0,
) -> RepairStep:
    loss, right, count = 0.0, 0, 0
    for inputs, labels in batches():
        logits = first_tensor(model(inputs)).float()
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(-1) == labels).sum())
        count += len(labels)
    if not count:
        raise InputError(
            "there are no images to repair the network on",
            code="REPAIR_NEEDS_DATA",
            hint="give a data set with images",
        )
    return RepairStep(name, loss / count, right / count, seconds, layers)
