"""How small a data set could be: complexity against images per class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunecli.complexity.csg import csg
from prunecli.complexity.neighbours import WORKSPACE
from prunecli.errors import InputError
from prunecli.preflight.analysis import HARDEST
from prunecli.progress import Progress, Step, silent
from prunecli.registry import Registry
from prunecli.report import Reduction, ReductionStep

if TYPE_CHECKING:
    import torch

    from prunecli.complexity.estimates import CsgSettings, RepeatedCsg

Rows: TypeAlias = NDArray[np.int64]

SIZES = 8
"""Sizes that are tried, in equal steps of a factor."""


def reduction(
    points: NDArray[np.float32],
    labels: Rows,
    *,
    settings: CsgSettings,
    tolerance: float,
    repeats: int = 5,
    workspace: int = WORKSPACE,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Reduction:
    """Return the complexity of random class-balanced subsets, and the smallest size that keeps it.

    A size keeps it if its mean over `repeats` draws, and that of every larger size, lies within
    `tolerance` (a share of the whole set's score) of the whole. The rule is our own. Raises
    `InputError` (`BAD_SETTING`, `TOO_FEW_SAMPLES`).
    """
    check_tolerance(tolerance)
    counts = np.bincount(labels)
    most, least = int(counts[counts > 0].min()), settings.neighbours + 2
    if most <= least:
        raise InputError(
            f"the smallest class has {most} images: too few to try smaller sets",
            code="TOO_FEW_SAMPLES",
        )
    sizes = np.unique(np.geomspace(least, most, SIZES).round().astype(np.int64)).tolist()
    score = partial(_score, settings=settings, workspace=workspace, device=device)
    done, steps = 0, []
    for size in sizes:
        scores = []
        for seed in range(repeats):
            rows = balanced_rows(labels, size, seed=settings.seed + seed)
            scores.append(score(points[rows], labels[rows], seed))
            done += 1
            progress(Step("reduction", done, len(sizes) * repeats))
        steps.append(ReductionStep(size, float(np.mean(scores)), float(np.std(scores, ddof=1))))
    whole = float(np.mean([score(points, labels, seed) for seed in range(repeats)]))
    smallest = _smallest(steps, whole, tolerance)
    # The largest size of a balanced set is the whole of it, which keeps its own score.
    is_whole = smallest is not None and smallest * np.count_nonzero(counts) == len(labels)
    return Reduction(tuple(steps), whole, tolerance, None if is_whole else smallest)


def check_tolerance(tolerance: float) -> None:
    """Raise `InputError` (`BAD_SETTING`) for a tolerance that is no share."""
    if not 0 < tolerance < 1:
        raise InputError(
            f"the tolerance is a share between 0 and 1, not {tolerance:g}",
            code="BAD_SETTING",
            hint="a tenth of the score: --tolerance 0.1",
        )


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a subset is chosen from: `labels` [N], draws of a complexity measure, a seed.

    `easiness` [N] is the mean learnability over runs, NaN for images that no run had.
    """

    labels: Rows
    votes: RepeatedCsg
    seed: int
    easiness: NDArray[np.float64] | None = None


SubsetRule: TypeAlias = Callable[[Candidates, int], Rows]
"""From candidates and images per class to rows, ascending."""

SUBSET_RULES: Registry[SubsetRule] = Registry("subset rule")


@SUBSET_RULES.register("random", summary="images of every class at random")
def random_rows(candidates: Candidates, size: int) -> Rows:
    """Return the rows of a random class-balanced subset."""
    return balanced_rows(candidates.labels, size, seed=candidates.seed)


@SUBSET_RULES.register("confusion", summary="the images of every class that are most like others")
def confusing_rows(candidates: Candidates, size: int) -> Rows:
    """Return the rows with most neighbours of other classes; undrawn and equal ones at random."""
    foreign = np.zeros(len(candidates.labels))
    for run in candidates.votes.runs:
        alike = run.neighbour_classes == run.sample_classes[:, None]
        foreign[run.samples] = 1 - alike.mean(axis=1)
    return _highest(foreign, candidates, size)


@SUBSET_RULES.register(HARDEST, summary="the images of every class that are learned latest")
def hardest_rows(candidates: Candidates, size: int) -> Rows:
    """Return the least learnable rows, so that the easiest go first; equal ones at random.

    Images that no run had are kept: nothing says that they are easy.
    """
    assert candidates.easiness is not None  # checked before any work
    return _highest(-np.nan_to_num(candidates.easiness, nan=-1.0), candidates, size)


def _highest(values: NDArray[np.float64], candidates: Candidates, size: int) -> Rows:
    """Return the `size` rows of every class with the highest values; equal ones at random."""
    labels = candidates.labels
    shuffled = np.random.default_rng(candidates.seed).permutation(len(labels))
    order = shuffled[np.argsort(-values[shuffled], kind="stable")]
    chosen = [order[labels[order] == label][:size] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def balanced_rows(labels: Rows, size: int, *, seed: int) -> Rows:
    """Return the rows, ascending, of a random subset with at most `size` of every class."""
    random = np.random.default_rng(seed)
    chosen = [
        random.permutation(np.flatnonzero(labels == label))[:size] for label in np.unique(labels)
    ]
    return np.sort(np.concatenate(chosen))


def _score(
    points: NDArray[np.float32],
    labels: Rows,
    seed: int,
    *,
    settings: CsgSettings,
    workspace: int,
    device: torch.device | str,
) -> float:
    found = csg(
        points,
        labels,
        samples=settings.samples,
        neighbours=settings.neighbours,
        volume=settings.volume,
        min_volume=settings.min_volume,
        seed=(settings.seed + seed) % 2**32,
        variant=settings.variant,
        workspace=workspace,
        device=device,
    )
    return found.csg


def _smallest(steps: list[ReductionStep], whole: float, tolerance: float) -> int | None:
    smallest = None
    for step in reversed(steps):
        if abs(step.score - whole) > tolerance * whole:
            break
        smallest = step.images_per_class
    return smallest
