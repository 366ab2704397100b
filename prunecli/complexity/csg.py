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
from prunecli.complexity.neighbours import (
    WORKSPACE,
    Floats,
    Indices,
    check_features,
    nearest_neighbours,
)
from prunecli.complexity.spectrum import SCORES, class_similarity, laplacian_spectrum
from prunecli.complexity.volumes import VOLUMES
from prunecli.errors import InputError
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

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

    `likelihood` is S [K, K]: S_ij estimates how much samples of class i look like class j; rows sum
    to one. `similarity` is W [K, K] and `eigenvalues` [K] the ascending spectrum of its Laplacian.
    `samples` [m] and `neighbours` [m, k] are rows of the features; `sample_classes` [m] and
    `neighbour_classes` [m, k] are positions in `classes`, whose sizes are `counts` [K].
    `effective_samples` [K] is (sum w)^2 / sum w^2 with w the inverse volumes.
    """

    csg: float
    classes: tuple[object, ...]
    counts: Indices
    eigenvalues: Floats
    similarity: Floats
    likelihood: Floats
    samples: Indices
    sample_classes: Indices
    neighbours: Indices
    neighbour_classes: Indices
    log_volumes: Floats
    effective_samples: Floats
    settings: CsgSettings
    warnings: tuple[str, ...]

    @property
    def votes(self) -> Floats:
        """The share of each sample's neighbours that are of each class, [m, K]."""
        count, width = self.neighbour_classes.shape
        votes = np.zeros((count, len(self.classes)))
        np.add.at(votes, (np.arange(count)[:, None], self.neighbour_classes), 1 / width)
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
    """The mean CSG over repeats, its standard deviation, and the 95 % t-interval of the mean."""

    mean: float
    standard_deviation: float
    interval: tuple[float, float]
    runs: tuple[CsgResult, ...]


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
) -> CsgResult:
    """Estimate how hard a classification problem is: 0 for easy to K - 1 for hopeless.

    `features` [N, d] are embedded samples, `labels` [N] their classes, of any type. `samples` are
    drawn per class: a count (int), or a share of each class (float in (0, 1]). `volume` is `box`,
    which is never taken smaller than the absolute `min_volume` (so the scale of the features
    matters), or `none`. Classes of fewer than `min_class_size` samples are left out. Temporary
    arrays take `workspace` bytes each. Raises `InputError`: `BAD_FEATURES`, `BAD_LABELS`,
    `BAD_SETTING`, `ONE_CLASS`, `TOO_FEW_SAMPLES`, `UNKNOWN_VOLUME`, `UNKNOWN_COMPLEXITY_SCORE`.

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
    data = _Labelled.of(features, labels, min_class_size)
    drawn = _draw(data, settings)
    return _estimate(data, settings, drawn, _Surroundings.of(data, settings, drawn, workspace))


def csg_repeated(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    repeats: int = 30,
    settings: CsgSettings | None = None,
    workspace: int = WORKSPACE,
    progress: Progress = silent,
) -> RepeatedCsg:
    """Return the CSG over `repeats` draws, with the seeds from `settings.seed` upwards.

    The mean is over scores: the score of a mean spectrum would only be a lower bound. Raises
    `InputError` as `csg` does, and `BAD_SETTING` for less than one repeat.
    """
    _require(repeats >= 1, f"repeats is at least 1, not {repeats}")
    first = settings or CsgSettings()
    data = _Labelled.of(features, labels, first.min_class_size)
    series = [replace(first, seed=(first.seed + number) % 2**32) for number in range(repeats)]
    draws = [_draw(data, settings) for settings in series]
    # Draws overlap: looking around every sample once saves most of the work of many repeats.
    around = _Surroundings.of(data, first, np.unique(np.concatenate(draws)), workspace)
    runs: list[CsgResult] = []
    for each, drawn in zip(series, draws, strict=True):
        runs.append(_estimate(data, each, drawn, around))
        progress(Step("complexity", len(runs), repeats))
    scores = np.array([run.csg for run in runs])
    mean = float(scores.mean())
    deviation = float(scores.std(ddof=1)) if repeats > 1 else float("nan")
    half = float(stdtrit(repeats - 1, 0.975)) * deviation / repeats**0.5 if repeats > 1 else 0.0
    return RepeatedCsg(mean, deviation, (mean - half, mean + half), tuple(runs))


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Features with classes numbered from zero; `rows` are their positions in the caller's."""

    features: NDArray[np.generic]
    targets: Indices
    classes: tuple[object, ...]
    counts: Indices
    rows: Indices
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, features: ArrayLike, labels: ArrayLike, min_class_size: int) -> _Labelled:
        points, named = np.asarray(features), np.asarray(labels)
        check_features(points)
        _check_labels(named, len(points))
        names, targets, counts = np.unique(named, return_inverse=True, return_counts=True)
        small = counts < min_class_size
        warnings: tuple[str, ...] = ()
        rows = np.arange(len(points))
        if small.any():
            rows = np.flatnonzero(~small[targets])
            lost = _some(names[small].tolist())
            warnings = (f"classes of fewer than {min_class_size} samples are left out: {lost}",)
            points, targets = points[rows], (np.cumsum(~small) - 1)[targets[rows]]
        names, counts = names[~small], counts[~small]
        if len(names) < 2:
            raise InputError(
                f"complexity needs two classes or more, there is {len(names)}", code="ONE_CLASS"
            )
        return cls(points, targets, tuple(names.tolist()), counts, rows, warnings)


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """The neighbours [m, k] and log volumes [m] of some rows [m] of labelled features."""

    rows: Indices
    nearest: Indices
    log_volumes: Floats

    @classmethod
    def of(
        cls, data: _Labelled, settings: CsgSettings, rows: Indices, workspace: int
    ) -> _Surroundings:
        found = nearest_neighbours(
            data.features, rows, neighbours=settings.neighbours, workspace=workspace
        ).indices
        volumes = VOLUMES.get(settings.volume)(data.features, rows, found, workspace)
        return cls(rows, found, volumes)

    def at(self, rows: Indices) -> tuple[Indices, Floats]:
        """Return the neighbours and log volumes of rows that are among `self.rows`."""
        order = np.argsort(self.rows)
        places = order[np.searchsorted(self.rows, rows, sorter=order)]
        return self.nearest[places], self.log_volumes[places]


def _estimate(
    data: _Labelled, settings: CsgSettings, drawn: Indices, around: _Surroundings
) -> CsgResult:
    nearest, volumes = around.at(drawn)
    clamped = np.maximum(volumes, np.log(settings.min_volume))
    own, others = data.targets[drawn], data.targets[nearest]
    weights = _weights(own, clamped, len(data.classes))
    likelihood = _likelihood(own, others, weights, len(data.classes))
    effective = np.bincount(own, weights) ** 2 / np.bincount(own, weights**2)
    similarity = class_similarity(likelihood)
    eigenvalues = laplacian_spectrum(similarity)
    return CsgResult(
        csg=SCORES.get(settings.variant)(eigenvalues),
        classes=data.classes,
        counts=data.counts,
        eigenvalues=eigenvalues,
        similarity=similarity,
        likelihood=likelihood,
        samples=data.rows[drawn],
        sample_classes=own,
        neighbours=data.rows[nearest],
        neighbour_classes=others,
        log_volumes=clamped,
        effective_samples=effective,
        settings=settings,
        warnings=(*data.warnings, *_doubts(data, settings, volumes, own, effective)),
    )


def _draw(data: _Labelled, settings: CsgSettings) -> Indices:
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
    data: _Labelled, settings: CsgSettings, volumes: Floats, own: Indices, effective: Floats
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


def _check_labels(labels: NDArray[np.generic], count: int) -> None:
    if labels.ndim != 1 or len(labels) != count:
        raise InputError(
            f"labels must be one per sample [{count}], not of shape {labels.shape}",
            code="BAD_LABELS",
            hint="turn one-hot labels into class numbers or names",
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError("labels hold NaN or infinities", code="BAD_LABELS")


def _is_amount(samples: float) -> bool:
    if isinstance(samples, bool):
        return False
    return samples >= 1 if _is_count(samples) else 0 < samples <= 1


def _is_count(samples: float) -> bool:
    return isinstance(samples, int | np.integer)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message, code="BAD_SETTING")


def _some(names: list[object], shown: int = 5) -> str:
    listed = ", ".join(str(name) for name in names[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown} more"
