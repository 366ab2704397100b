"""Dead channels: find them, and move their constants on, so that they can be cut at no cost."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.dead.activations import Seen, look, random_inputs
from prunecli.dead.compensate import Settled, compensated, move, settle
from prunecli.dead.find import (
    constant_atoms,
    of_groups,
    penalties,
    silent_atoms,
    unread_atoms,
    why_not,
)
from prunecli.dead.readers import Use, uses_of
from prunecli.dead.trial import Trial, below_threshold, dense_graph, score
from prunecli.errors import InputError
from prunecli.evaluation.batches import NO_IMAGES, Images, count_images
from prunecli.progress import Progress, silent
from prunecli.report import DeadGroup, DeadReport, DeadScores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.evaluation.batches import BatchSource
    from prunecli.network.traced import Network

__all__ = ["Dead", "Kept", "find_dead", "without_dead"]

ROUNDED = "the width that is left is rounded up"
"""Why a dead channel stays that an alignment, or the smallest width, asks for."""


@dataclass(frozen=True)
class Kept:
    """What stays although it is dead: groups by name, and what makes a width a multiple."""

    groups: frozenset[str] = frozenset()
    align: int = 1
    min_width: int = 1


@dataclass(frozen=True)
class Dead:
    """Which channels can go (one boolean per atom), and how their constants are moved.

    The constants of `settled.gone` are moved, those included that stay for a width.
    """

    gone: NDArray[np.bool_]
    uses: Sequence[Use]
    settled: Settled
    report: DeadReport


def find_dead(
    network: Network,
    *,
    batches: BatchSource | None = None,
    threshold: float | None = None,
    kept: Kept | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Dead:
    """Find the channels that can go at no cost.

    With images, a channel is dead that is constant on them wherever it is read, or that nothing
    reads. A `threshold` adds those whose replacement by their mean changes the mean loss by no more
    (mean replacement penalty), each alone and all together. Without images, those that are dead by
    their weights. Raises `InputError` for a threshold without images.
    """
    _check(threshold, batches)
    kept = kept or Kept()
    images = _count(batches)
    seen = _look(network, batches, seed, progress)
    able = of_groups(network, lambda group: not (why_not(group) or group.name in kept.groups))
    unread = unread_atoms(network) & able
    constant = constant_atoms(network, seen) & able & ~unread
    if batches is None:
        constant &= silent_atoms(network)
    below = np.zeros_like(constant)
    uses = uses_of(network, seen)
    settled = settle(network, uses, constant | unread, accepted=below)
    if threshold is not None and batches is not None:
        changes = np.abs(penalties(network, seen, batches, progress=progress))
        below = (changes <= threshold) & able & ~constant & ~unread
        trial = Trial(network, uses, batches, threshold, progress)
        settled = below_threshold(trial, constant | unread, np.where(below, changes, np.inf))
    held = _rounded(network, settled.gone, kept)
    gone = settled.gone & ~held
    stays = {**settled.stays, **dict.fromkeys(np.flatnonzero(held).tolist(), ROUNDED)}
    kinds = {"constant": constant, "unread": unread, "below": below}
    report = dataclasses.replace(
        _report(network, kinds, gone, stays),
        threshold=threshold,
        images=images,
    )
    return Dead(gone, uses, settled, report)


def without_dead(
    network: Network, dead: Dead, *, images: Images = NO_IMAGES
) -> tuple[Network, DeadReport]:
    """Return the dense network in which nothing reads the dead channels, and what it costs.

    Their constants stand in what is left of their readers. Both networks are measured on `images`.
    Raises `GraphError` for a model that cannot be copied.
    """
    moved = move(network, dead.uses, dead.settled)
    after = compensated(network, dead.settled.gone, moved)
    scores = None
    if images.judged_on is not None:
        before, then = (score(dense_graph(one), images.judged_on) for one in (network, after))
        if before is not None and then is not None:
            scores = DeadScores(
                before.loss,
                then.loss,
                before.accuracy,
                then.accuracy,
                before.images,
                images.measured,
            )
    return after, dataclasses.replace(dead.report, borders=dict(moved.borders), scores=scores)


def _check(threshold: float | None, batches: BatchSource | None) -> None:
    if threshold is None:
        return
    if not (math.isfinite(threshold) and threshold >= 0):
        raise InputError(
            f"--dead-threshold {threshold} is no change of the loss",
            code="BAD_OPTION",
            hint="give a small number, 0 or more: 0.001",
        )
    if batches is None:
        raise InputError(
            "a threshold is a change of the loss on images, and none were given",
            code="DEAD_NEEDS_DATA",
            hint="add --data DIR, or leave the threshold out",
        )


def _count(batches: BatchSource | None) -> int:
    images = 0 if batches is None else count_images(batches)
    if batches is not None and not images:
        raise InputError(
            "there are no images to look for dead channels on",
            code="DEAD_NEEDS_DATA",
            hint="give a data set with images to train on",
        )
    return images


def _look(
    network: Network, batches: BatchSource | None, seed: int, progress: Progress
) -> list[Seen]:
    """Return what every place holds: over the images, or for weights alone over random inputs."""
    if batches is not None:
        return look(network, ([images] for images, _ in batches()), progress=progress)
    inputs = random_inputs(network, seed=seed)
    return [] if inputs is None else look(network, inputs, progress=progress)


def _rounded(network: Network, gone: NDArray[np.bool_], kept: Kept) -> NDArray[np.bool_]:
    """Return the dead channels that stay, so that every width is a multiple and large enough."""
    held = np.zeros_like(gone)
    for group in network.coupling.groups:
        dead = group.first + np.flatnonzero(gone[group.atoms])
        step = kept.align // math.gcd(kept.align, group.multiplicity)
        left = group.width - len(dead)
        least = max(left, 1, math.ceil(kept.min_width / group.multiplicity))
        width = min(math.ceil(least / step) * step, group.width)
        held[dead[: width - left]] = True
    return held


def _report(
    network: Network,
    kinds: Mapping[str, NDArray[np.bool_]],
    gone: NDArray[np.bool_],
    stays: Mapping[int, str],
) -> DeadReport:
    shares = network.cost.share("flops")
    groups = []
    for at, group in enumerate(network.coupling.groups):
        found = {
            kind: tuple(np.flatnonzero(mask[group.atoms]).tolist()) for kind, mask in kinds.items()
        }
        if not any(found.values()):
            continue
        own = {
            str(atom - group.first): reason
            for atom, reason in sorted(stays.items())
            if group.first <= atom < group.first + group.width
        }
        count = int(gone[group.atoms].sum())
        share = float(shares[at]) * count / group.width
        groups.append(DeadGroup(group.name, group.width, **found, stays=own, flops_share=share))
    reasons = Counter(
        why_not(group) for group in network.coupling.groups for _ in range(group.width)
    )
    reasons.pop("", None)
    return DeadReport(
        groups=tuple(groups),
        channels=network.coupling.atom_count,
        removable=int(gone.sum()),
        not_looked_at=dict(reasons),
    )
