"""Cut a network that was read once to widths or a mask, without proof, and score what is left.

Nothing is traced again and nothing is proven: the graph is re-emitted from the surviving ids. What
is written is cut and proven by `prune_network`.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from prunecli.allocation import Saliency, keep_mask
from prunecli.errors import GateError, GraphError, InputError
from prunecli.evaluation.outputs import first_tensor
from prunecli.plan import PruningPlan
from prunecli.progress import Progress, silent
from prunecli.pruning.selection import select
from prunecli.repair import repair_
from prunecli.report import Score, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.evaluation.outputs import Batches
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

DENSE = "dense"
"""The name under which the uncut network stands among trials."""

TEMPERATURES = torch.logspace(-2, 8, 41, base=2, dtype=torch.float64)
"""What logits are divided by to find the calibrated loss: a quarter of an octave apart."""


def score_on(module: nn.Module, batches: Callable[[], Batches]) -> Score:
    """Return loss and accuracy of a network in evaluation mode on normalised images.

    Raises `InputError`: `NOT_A_CLASSIFIER`, `CLASS_COUNT_MISMATCH`, `NO_IMAGES`.
    """
    loss, right, count = 0.0, 0, 0
    tempered = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    with torch.no_grad():
        for images, labels in batches():
            logits = first_tensor(module(images)).float()
            _check_answers(logits, labels)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            for at, temperature in enumerate(TEMPERATURES.tolist()):
                cooled = functional.cross_entropy(logits / temperature, labels, reduction="sum")
                tempered[at] += cooled.double().cpu()
            right += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
    if not count:
        raise InputError(
            "there are no images to score the network on",
            code="NO_IMAGES",
            hint="give a data set with images to train on",
        )
    return Score(loss / count, right / count, float(tempered.min()) / count, count)


def _check_answers(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or labels.dim() != 1:
        raise InputError(
            "loss and accuracy need logits [images, classes]; this network's first output is "
            f"{list(logits.shape)}",
            code="NOT_A_CLASSIFIER",
            hint="name a signal and a budget; only classifiers can be tried on images",
        )
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise InputError(
            f"the network tells {logits.shape[1]} classes apart, and the data has more",
            code="CLASS_COUNT_MISMATCH",
            hint="give the data that the network was made for",
        )


def cut_to(network: Network, keep: NDArray[np.bool_]) -> nn.Module:
    """Return the network cut to the atoms that `keep` marks, in evaluation mode, unproven.

    Raises `GraphError` for a network of which one forward was recorded.
    """
    if network.trace.recorded:
        raise GraphError(
            "a network of which one forward was recorded cannot be tried on images: "
            f"{network.trace.recorded}",
            code="RECORDED_ONLY",
            hint="name a signal and a budget, and measure what comes out with prunecli evaluate",
        )
    slim, _ = network.graph_network(keep)
    return slim


def dense_trial(network: Network, batches: Callable[[], Batches]) -> Trial:
    """Return the score of the uncut network, to compare trials with."""
    start = time.perf_counter()
    score = score_on(cut_to(network, np.ones(network.coupling.atom_count, np.bool_)), batches)
    return Trial(
        signal=DENSE,
        allocation="",
        seed=0,
        budget={},
        kept=dict.fromkeys(network.cost.dense, 1.0),
        score=score,
        seconds=round(time.perf_counter() - start, 3),
    )


def kept_at(
    network: Network, saliency: Saliency, widths: Widths
) -> tuple[NDArray[np.bool_], dict[str, float]]:
    """Return the mask of the most salient atoms at some widths, and the share kept per cost."""
    ranked = np.nan_to_num(saliency, nan=np.inf)
    dense, after = network.cost.dense, network.cost.cost(widths)
    kept = {kind: after[kind] / dense[kind] if dense[kind] else 1.0 for kind in dense}
    return keep_mask(network.coupling.groups, ranked, widths), kept


def try_cut(
    network: Network,
    saliency: Saliency,
    *,
    budget: Budget,
    options: PruneOptions,
    measured_on: Callable[[], Batches],
    importance: NDArray[np.float64] | None = None,
    gone: NDArray[np.bool_] | None = None,
    repaired_on: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> Trial:
    """Cut to `budget` by `saliency` (one number per atom) and score the cut on `measured_on`.

    `importance` is one number per group, for allocations that look at it; atoms that are `gone` go
    first.
    `repaired_on` yields the images of `options.repair`, after which the cut is scored once more;
    without them nothing is repaired. A budget that cannot be reached is a trial with a `problem`
    and without a score.
    """
    start = time.perf_counter()
    tried = Trial(
        signal=options.signal,
        allocation=options.allocation,
        seed=options.seed,
        budget=budget.to_json(),
        kept={},
        score=None,
    )
    try:
        selection = select(
            network, saliency, budget, options, held={}, importance=importance, gone=gone
        )
    except (GateError, GraphError) as error:
        return dataclasses.replace(tried, problem=error.message)
    ranked = saliency if gone is None else np.where(gone, -np.inf, saliency)
    keep, kept = kept_at(network, ranked, selection.widths)
    slim = cut_to(network, keep)
    tried = dataclasses.replace(tried, kept=kept, score=score_on(slim, measured_on))
    if repaired_on is not None and options.repair:
        repair_(
            slim,
            network,
            PruningPlan(network.coupling.fingerprint, {}, {}, mode="graph"),
            keep,
            names=options.repair,
            batches=repaired_on,
            measured_on=lambda: first_images(measured_on, 1),  # its own scores are not needed
            progress=progress,
        )
        tried = dataclasses.replace(tried, repaired=score_on(slim, measured_on))
    return dataclasses.replace(tried, seconds=round(time.perf_counter() - start, 3))


def first_images(batches: Callable[[], Batches], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches until they hold `count` images; of the last one as many as are missing."""
    for images, labels in batches():
        yield images[:count], labels[:count]
        count -= len(labels)
        if count <= 0:
            return
