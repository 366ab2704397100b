"""The cumulative spectral gradient: how much classes overlap, without training a classifier.

F. Branchaud-Charron, A. Achkar, P.-M. Jodoin, "Spectral Metric for Dataset Complexity Assessment",
CVPR 2019, computed as their reference implementation does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from prunecli.complexity.doubts import small_classes
from prunecli.complexity.neighbours import WORKSPACE, Floats, Indices
from prunecli.complexity.spectrum import SCORES, class_similarity, laplacian_spectrum
from prunecli.complexity.surroundings import Labelled, Surroundings, look_around
from prunecli.complexity.volumes import VOLUMES
from prunecli.errors import InputError
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import ArrayLike

LOW_SHARE = 0.2
"""Effective share of a class's samples below which the score is said to hang on a few of them."""


@dataclass(frozen=True)
class CsgSettings:
    """How a CSG is computed, as `csg` describes it; its defaults are the reference's."""

    samples: float = 250
    neighbours: int = 3
    volume: str = "box"
    min_volume: float = 1e-4
    seed: int = 0
    variant: str = "csg"
    min_class_size: int = 1

    def __post_init__(self) -> None:
        VOLUMES.get(self.volume)
        SCORES.get(self.variant)
        _require(_is_amount(self.samples), f"samples is a count or a share, not {self.samples!r}")
        _require(self.neighbours >= 1, f"neighbours is at least 1, not {self.neighbours}")
        _require(0 < self.min_volume < np.inf, f"min_volume is positive, not {self.min_volume}")
        _require(0 <= self.seed < 2**32, f"seed lies in 0 to 2**32 - 1, not {self.seed}")


@dataclass(frozen=True, eq=False)
class CsgResult:
    """One estimate of the CSG with all that led to it: K classes, m samples, k neighbours.

    `classes` have sizes `counts` [K]; `eigenvalues` [K] is the ascending spectrum of the Laplacian.
    `effective_samples` [K] is (sum w)^2 / sum w^2 with w the inverse volumes. `drawn` [m] are
    places in `around`, which all repeats share. Everything else is made from these when it is asked
    for, lest thirty repeats over a thousand classes fill the memory.
    """

    csg: float
    classes: tuple[object, ...]
    counts: Indices
    eigenvalues: Floats
    effective_samples: Floats
    around: Surroundings
    drawn: Indices
    settings: CsgSettings
    warnings: tuple[str, ...]

    @property
    def samples(self) -> Indices:
        """The rows of the features that were drawn, [m]."""
        return self.around.data.rows[self.around.rows[self.drawn]]

    @property
    def sample_classes(self) -> Indices:
        """Their classes, as positions in `classes`, [m]."""
        return self.around.data.targets[self.around.rows[self.drawn]]

    @property
    def neighbours(self) -> Indices:
        """The rows of the features that are nearest to each, nearest first, [m, k]."""
        return self.around.data.rows[self.around.nearest[self.drawn]]

    @property
    def neighbour_classes(self) -> Indices:
        """The classes of the neighbours, as positions in `classes`, [m, k]."""
        return self.around.data.targets[self.around.nearest[self.drawn]]

    @property
    def log_volumes(self) -> Floats:
        """The logarithms of the volumes, none smaller than `settings.min_volume`, [m]."""
        volumes = self.around.log_volumes[self.drawn]
        return np.maximum(volumes, np.log(self.settings.min_volume))

    @property
    def likelihood(self) -> Floats:
        """S [K, K]: S_ij estimates how much samples of class i look like class j; rows sum to 1."""
        own, count = self.sample_classes, len(self.classes)
        weights = _weights(own, self.log_volumes, count)
        return _likelihood(own, self.neighbour_classes, weights, count)

    @property
    def similarity(self) -> Floats:
        """W [K, K], of which the spectrum is."""
        return class_similarity(self.likelihood)

    @property
    def votes(self) -> Floats:
        """The share of each sample's neighbours that are of each class, [m, K]."""
        others = self.neighbour_classes
        count, width = others.shape
        votes = np.zeros((count, len(self.classes)))
        np.add.at(votes, (np.arange(count)[:, None], others), 1 / width)
        return votes

    @property
    def densities(self) -> Floats:
        """The votes over the volumes, [m, K]: the most confusing samples of a class stand out."""
        votes = self.votes
        with np.errstate(over="ignore"):
            weights = np.broadcast_to(np.exp(-self.log_volumes)[:, None], votes.shape)
        densities: Floats = np.zeros_like(votes)
        np.multiply(votes, weights, out=densities, where=votes > 0)
        return densities


@dataclass(frozen=True, eq=False)
class RepeatedCsg:
    """The mean CSG over repeats, its standard deviation, and the 95 % t-interval of the mean.

    `likelihood` and `similarity` [K, K] are the means of those of the runs.
    """

    mean: float
    standard_deviation: float
    interval: tuple[float, float]
    runs: tuple[CsgResult, ...]
    likelihood: Floats
    similarity: Floats


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
    _require(repeats >= 1, f"repeats is at least 1, not {repeats}")
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
    weights = _weights(own, np.maximum(volumes, np.log(settings.min_volume)), count)
    likelihood = _likelihood(own, others, weights, count)
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
    wanted = int(samples) if _is_count(samples) else max(1, int(samples * available))
    return min(wanted, available)


def _weights(own: Indices, log_volumes: Floats, classes: int) -> Floats:
    """Return the inverse volumes, each class's scaled to a largest weight of one.

    The scale cancels where rows of S are normalised, and without it small volumes overflow.
    """
    lowest = np.full(classes, np.inf)
    np.minimum.at(lowest, own, log_volumes)
    return np.asarray(np.exp(lowest[own] - log_volumes), dtype=np.float64)


def _likelihood(own: Indices, others: Indices, weights: Floats, classes: int) -> Floats:
    """Return S [K, K] from the classes of samples [m], of their neighbours [m, k] and weights."""
    pairs = (own[:, None] * classes + others).ravel()
    votes = np.bincount(pairs, np.repeat(weights, others.shape[1]), minlength=classes**2)
    likelihood = votes.reshape(classes, classes)
    return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True), dtype=np.float64)


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


def _is_amount(samples: float) -> bool:
    if isinstance(samples, bool):
        return False
    return samples >= 1 if _is_count(samples) else 0 < samples <= 1


def _is_count(samples: float) -> bool:
    return isinstance(samples, int | np.integer)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message, code="BAD_SETTING")
