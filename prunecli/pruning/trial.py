"""Cut a network that was read once to widths or a mask, without proof, and score what is left.

Nothing is traced again and nothing is proven: the graph is re-emitted from the surviving ids. What
is written is cut and proven by `prune_network`.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation import Saliency, keep_mask
from prunecli.errors import GateError, GraphError
from prunecli.evaluation.batches import Images, first_images
from prunecli.evaluation.scores import TEMPERATURES, score_on
from prunecli.plan import GRAPH, PruningPlan
from prunecli.progress import Progress, silent
from prunecli.pruning.selection import select
from prunecli.repair import repair_
from prunecli.report import Score, Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.evaluation.batches import BatchSource
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

DENSE = "dense"
"""The name under which the uncut network stands among trials."""


def calibrated_score(network: nn.Module, batches: BatchSource) -> Score:
    """Return loss, accuracy and calibrated loss of a network in evaluation mode.

    Raises `InputError`: `NOT_A_CLASSIFIER`, `CLASS_COUNT_MISMATCH`, `NO_IMAGES`.
    """
    found = score_on(network, batches, temperatures=TEMPERATURES)
    assert found.calibrated is not None
    return Score(found.loss, found.accuracy, found.calibrated, found.images)


def cut_to(network: Network, keep: NDArray[np.bool_]) -> nn.Module:
    """Return the network cut to the atoms that `keep` marks, in evaluation mode, unproven.

    Raises `GraphError` for a network of which one forward was recorded.
    """
    if network.trace.recorded:
        raise GraphError(
            "a model of which one forward was recorded cannot be tried on images: "
            f"{network.trace.recorded}",
            code="RECORDED_ONLY",
            hint="name a signal and a budget, and measure what comes out with prunecli evaluate",
        )
    slim, _ = network.graph_network(keep)
    return slim


def dense_trial(network: Network, batches: BatchSource) -> Trial:
    """Return the score of the uncut network, to compare trials with."""
    start = time.perf_counter()
    whole = np.ones(network.coupling.atom_count, np.bool_)
    score = calibrated_score(cut_to(network, whole), batches)
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
    images: Images,
    importance: NDArray[np.float64] | None = None,
    gone: NDArray[np.bool_] | None = None,
    progress: Progress = silent,
) -> Trial:
    """Cut to `budget` by `saliency` (one number per atom) and measure the cut on `images`.

    `importance` is one number per group, for allocations that look at it; atoms that are `gone` go
    first. `options.repair` looks at `images.scored_on`, after which the cut is measured once more;
    without them nothing is repaired. A budget that cannot be reached is a trial with a `problem`
    and without a score.
    """
    start, judged_on = time.perf_counter(), images.judged_on
    assert judged_on is not None
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
    tried = dataclasses.replace(tried, kept=kept, score=calibrated_score(slim, judged_on))
    if images.scored_on is not None and options.repair:
        repair_(
            slim,
            network,
            PruningPlan(network.coupling.fingerprint, {}, {}, mode=GRAPH),
            keep,
            names=options.repair,
            # Its own scores are not needed: one image will do.
            images=Images(images.scored_on, lambda: first_images(judged_on, 1)),
            progress=progress,
        )
        tried = dataclasses.replace(tried, repaired=calibrated_score(slim, judged_on))
    return dataclasses.replace(tried, seconds=round(time.perf_counter() - start, 3))
