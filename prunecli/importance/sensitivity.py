"""Sensitivity: what the loss rises by when a layer alone is cut hard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from prunecli.allocation import keep_mask
from prunecli.errors import InputError
from prunecli.evaluation.outputs import image_losses
from prunecli.graph.tracing.running import evaluating
from prunecli.importance.measure import SMALLEST, Measured, Numbers, register
from prunecli.progress import Step

if TYPE_CHECKING:
    from torch import nn

STAYS = 0.2
"""What stays of a group while its sensitivity is measured: it is pruned to 80 %."""


@register(
    "sensitivity",
    summary="Rise of the loss when a group alone loses its 80 % least salient channels.",
    needs_data=True,
)
def sensitivity(measured: Measured) -> Numbers:
    """Return, per group, the rise of the mean loss when it alone is cut to a fifth.

    The loss stands in for the error: on a thousand images it tells layers apart that the error
    does not. None is less than 1 % of the largest. NaN for a group of one channel. Raises
    `InputError` where no cut makes the loss rise.
    """
    network = measured.network
    groups, ranked = network.coupling.groups, np.nan_to_num(measured.saliency, nan=np.inf)
    dense = _loss(network.graph_network(np.ones(ranked.size, np.bool_))[0], measured)
    rises = np.full(len(groups), np.nan)
    for at, group in enumerate(groups):
        measured.progress(Step("importance", at, len(groups)))
        widths = network.cost.dense_widths.copy()
        widths[at] = max(1, round(STAYS * group.width))
        if widths[at] < group.width:
            slim, _ = network.graph_network(keep_mask(groups, ranked, widths))
            rises[at] = _loss(slim, measured) - dense
    measured.progress(Step("importance", len(groups), len(groups)))
    most = float(np.nanmax(rises)) if np.isfinite(rises).any() else 0.0
    if most <= 0:
        raise InputError(
            "the loss does not rise when layers are cut: the sensitivity tells nothing",
            code="NO_SENSITIVITY",
            hint="are these images and labels what the model was trained for?",
        )
    return np.asarray(np.maximum(rises, SMALLEST * most))


def _loss(network: nn.Module, measured: Measured) -> float:
    total, count = 0.0, 0
    with torch.no_grad(), evaluating(network):
        for images, labels in measured.images():
            total += float(image_losses(network(images), labels).double().sum())
            count += len(labels)
    if not count:
        raise InputError(
            "there are no images to measure the importance on", code="IMPORTANCE_NEEDS_DATA"
        )
    return total / count
