"""The cumulative spectral gradient: how much classes overlap, without training a classifier.

F. Branchaud-Charron, A. Achkar, P.-M. Jodoin, "Spectral Metric for Dataset Complexity Assessment",
CVPR 2019, computed as their reference implementation does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from prunecli.complexity.caveats import small_classes
from prunecli.complexity.estimates import (
    CsgResult,
    CsgSettings,
    RepeatedCsg,
    class_likelihood,
    inverse_volumes,
    is_count,
    require,
)
from prunecli.complexity.neighbourhoods import Labelled, Surroundings, look_around
from prunecli.complexity.neighbours import WORKSPACE, Floats, Indices
from prunecli.complexity.spectrum import SCORES, class_similarity, laplacian_spectrum
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import ArrayLike

LOW_SHARE = 0.2
"""Effective share of a class's samples below which the score is said to hang on a few of them."""


def csg(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    samples: float = CsgSettings.samples,
    neighbours: int = CsgSettings.neighbours,
    volume: str = CsgSettings.volume,
    min_volume: float = CsgSettings.min_volume,
    seed: int = CsgSettings.seed,
    variant: str = CsgSettings.variant,
    min_class_size: int = CsgSettings.min_class_size,
    workspace: int = WORKSPACE,
    device: torch.device | str = "cpu",
) -> CsgResult:
    """Estimate how hard a classification problem is: 0 for easy to K - 1 for hopeless.

    `features` [N, d] are embedded samples, `labels` [N] their classes, of any type. `samples` are
    drawn per class: a count (int), or a share of each class (float in (0, 1]). `volume` is `box`,
    which is never taken smaller than the absolute `min_volume` (so the scale of the features
    matters), or `none`. Classes of fewer than `min_class_size` samples are left out. Temporary
    arrays take `workspace` bytes each; neighbours are looked for on `device`, and are the same on
    all. Raises `InputError`: `BAD_FEATURES`, `BAD_LABELS`, `BAD_SETTING`, `ONE_CLASS`,
    `TOO_FEW_SAMPLES`, `UNKNOWN_VOLUME`, `UNKNOWN_COMPLEXITY_SCORE`.

    >>> result = csg([[0.0], [1.0], [50.0], [51.0]], ["cat", "cat", "dog", "dog"], neighbours=1)
    >>> result.csg, result.classes
    (0.0, ('cat', 'dog'))
    """
    settings = CsgSettings(
        samples=samples,
        neighbours=neighbours,
        volume=volume,
        min_volume=min_volume,
        seed=seed,
        variant=variant,
        min_class_size=min_class_size,
    )
    data = Labelled.of(features, labels, min_class_size)
    drawn = _draw(data, settings)
    around = look_around(
        data, drawn, neighbours=neighbours, workspace=workspace, device=device, progress=silent
    )
    result, _ = _estimate(settings, drawn, around.through(volume, workspace))
    return result


def csg_repeated(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    repeats: int = 30,
    settings: CsgSettings | None = None,
    workspace: int = WORKSPACE,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> RepeatedCsg:
    """Return the CSG over `repeats` draws, with the seeds from `settings.seed` upwards.

    The mean is over scores: the score of a mean spectrum would only be a lower bound. Raises
    `InputError` as `csg` does, and `BAD_SETTING` for less than one repeat.
    """
    settings = settings or CsgSettings()
    (result,) = csg_by_volume(
        features,
        labels,
        volumes=[settings.volume],
        repeats=repeats,
        settings=settings,
        workspace=workspace,
        device=device,
        progress=progress,
    ).values()
    return result


def csg_by_volume(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    volumes: Sequence[str],
    repeats: int,
    settings: CsgSettings,
    workspace: int = WORKSPACE,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> dict[str, RepeatedCsg]:
    """Return what `csg_repeated` does for each of several volumes, which share draws and search.

    Draws overlap too: looking around every sample once saves most of the work of many repeats.
    """
    require(repeats >= 1, f"repeats is at least 1, not {repeats}")
    data = Labelled.of(features, labels, settings.min_class_size)
    series = [replace(settings, seed=(settings.seed + at) % 2**32) for at in range(repeats)]
    draws = [_draw(data, each) for each in series]
    around = look_around(
        data,
        np.concatenate(draws),
        neighbours=settings.neighbours,
        workspace=workspace,
        device=device,
        progress=progress,
    )
    found: dict[str, RepeatedCsg] = {}
    names = list(dict.fromkeys(volumes))
    for volume in names:
        room = around.through(volume, workspace)
        likelihood = np.zeros((len(data.classes), len(data.classes)))
        similarity = np.zeros_like(likelihood)
        runs: list[CsgResult] = []
        for each, drawn in zip(series, draws, strict=True):
            run, (looks, alike) = _estimate(replace(each, volume=volume), drawn, room)
            runs.append(run)
            likelihood += looks / repeats
            similarity += alike / repeats
            progress(Step("complexity", len(found) * repeats + len(runs), len(names) * repeats))
        found[volume] = _summed_up(runs, likelihood, similarity)
    return found


def _summed_up(runs: list[CsgResult], likelihood: Floats, similarity: Floats) -> RepeatedCsg:
    scores, repeats = np.array([run.csg for run in runs]), len(runs)
    mean = float(scores.mean())
    deviation = float(scores.std(ddof=1)) if repeats > 1 else float("nan")
    half = float(stdtrit(repeats - 1, 0.975)) * deviation / repeats**0.5 if repeats > 1 else 0.0
    interval = (mean - half, mean + half)
    return RepeatedCsg(mean, deviation, interval, tuple(runs), likelihood, similarity)


def _estimate(
    settings: CsgSettings, drawn: Indices, around: Surroundings
) -> tuple[CsgResult, tuple[Floats, Floats]]:
    """Return the estimate of some drawn rows, and the S and W that it does not keep."""
    data, count = around.data, len(around.data.classes)
    places = np.searchsorted(around.rows, drawn)
    own, others = data.targets[drawn], data.targets[around.nearest[places]]
    volumes = around.log_volumes[places]
    weights = inverse_volumes(own, np.maximum(volumes, np.log(settings.min_volume)), count)
    likelihood = class_likelihood(own, others, weights, count)
    effective = np.bincount(own, weights) ** 2 / np.bincount(own, weights**2)
    similarity = class_similarity(likelihood)
    eigenvalues = laplacian_spectrum(similarity)
    result = CsgResult(
        csg=SCORES.get(settings.variant)(eigenvalues),
        classes=data.classes,
        counts=data.counts,
        eigenvalues=eigenvalues,
        effective_samples=effective,
        around=around,
        drawn=places,
        settings=settings,
        warnings=(*data.warnings, *_doubts(data, settings, volumes, own, effective)),
    )
    return result, (likelihood, similarity)


def _draw(data: Labelled, settings: CsgSettings) -> Indices:
    """Return the positions sampled from every class in turn.

    The reference draws from numpy's RandomState. NumPy has frozen that stream for good, so the
    published numbers can be met and a seed means the same samples on every version.
    """
    random = np.random.RandomState(settings.seed)
    members = np.split(np.argsort(data.targets, kind="stable"), np.cumsum(data.counts)[:-1])
    drawn = [random.permutation(rows)[: _amount(settings.samples, len(rows))] for rows in members]
    return np.concatenate(drawn)


def _amount(samples: float, available: int) -> int:
    wanted = int(samples) if is_count(samples) else max(1, int(samples * available))
    return min(wanted, available)


def _doubts(
    data: Labelled, settings: CsgSettings, volumes: Floats, own: Indices, effective: Floats
) -> list[str]:
    """Return what makes this estimate less than it looks, as sentences with numbers."""
    doubts = [*small_classes(data.classes, data.counts, settings.neighbours)]
    thin = np.flatnonzero(effective < LOW_SHARE * np.bincount(own))
    if len(thin):
        doubts.append(
            f"in {len(thin)} of {len(data.classes)} classes a few samples in dense places decide "
            f"(effective sample size from {effective[thin].min():.1f}); "
            "volume 'none' or more neighbours are steadier"
        )
    clamped = int((volumes < np.log(settings.min_volume)).sum())
    if clamped * 2 > len(volumes):
        doubts.append(
            f"{clamped} of {len(volumes)} volumes lie below {settings.min_volume:g} and are taken "
            "as that, so that their votes weigh the same"
        )
    return doubts
