"""How small a data set could be: complexity against images per class."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunecli.complexity.csg import CsgSettings, RepeatedCsg, csg
from prunecli.complexity.neighbours import WORKSPACE
from prunecli.errors import InputError
from prunecli.progress import Progress, Step, silent
from prunecli.registry import Registry
from prunecli.report import Reduction, ReductionStep

if TYPE_CHECKING:
    import torch

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
    if not 0 < tolerance < 1:
        raise InputError(
            f"the tolerance is a share between 0 and 1, not {tolerance:g}", code="BAD_SETTING"
        )
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
    return Reduction(tuple(steps), whole, tolerance, _smallest(steps, whole, tolerance))


SubsetRule: TypeAlias = Callable[[Rows, RepeatedCsg, int, int], Rows]
"""From labels [N], draws of a complexity measure, images per class and a seed to rows."""

SUBSET_RULES: Registry[SubsetRule] = Registry("subset rule")


@SUBSET_RULES.register("random", summary="images of every class at random")
def random_rows(labels: Rows, _: RepeatedCsg, size: int, seed: int) -> Rows:
    """Return the rows of a random class-balanced subset."""
    return balanced_rows(labels, size, seed=seed)


@SUBSET_RULES.register("confusion", summary="the images of every class that are most like others")
def confusing_rows(labels: Rows, votes: RepeatedCsg, size: int, seed: int) -> Rows:
    """Return the rows with most neighbours of other classes; undrawn and equal ones at random."""
    foreign = np.zeros(len(labels))
    for run in votes.runs:
        alike = run.neighbour_classes == run.sample_classes[:, None]
        foreign[run.samples] = 1 - alike.mean(axis=1)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(-foreign[shuffled], kind="stable")]
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
