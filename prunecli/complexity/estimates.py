"""What an estimate of the cumulative spectral gradient was asked for, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.complexity.spectrum import SCORES, class_similarity
from prunecli.complexity.volumes import VOLUMES
from prunecli.errors import InputError

if TYPE_CHECKING:
    from prunecli.complexity.neighbourhoods import Surroundings
    from prunecli.complexity.neighbours import Floats, Indices


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
        require(_is_amount(self.samples), f"samples is a count or a share, not {self.samples!r}")
        require(self.neighbours >= 1, f"neighbours is at least 1, not {self.neighbours}")
        require(0 < self.min_volume < np.inf, f"min_volume is positive, not {self.min_volume}")
        require(0 <= self.seed < 2**32, f"seed lies in 0 to 2**32 - 1, not {self.seed}")


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
        weights = inverse_volumes(own, self.log_volumes, count)
        return class_likelihood(own, self.neighbour_classes, weights, count)

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


def inverse_volumes(own: Indices, log_volumes: Floats, classes: int) -> Floats:
    """Return the inverse volumes, each class's scaled to a largest weight of one.

    The scale cancels where rows of S are normalised, and without it small volumes overflow.
    """
    lowest = np.full(classes, np.inf)
    np.minimum.at(lowest, own, log_volumes)
    return np.asarray(np.exp(lowest[own] - log_volumes), dtype=np.float64)


def class_likelihood(own: Indices, others: Indices, weights: Floats, classes: int) -> Floats:
    """Return S [K, K] from the classes of samples [m], of their neighbours [m, k] and weights."""
    pairs = (own[:, None] * classes + others).ravel()
    votes = np.bincount(pairs, np.repeat(weights, others.shape[1]), minlength=classes**2)
    likelihood = votes.reshape(classes, classes)
    return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True), dtype=np.float64)


def _is_amount(samples: float) -> bool:
    if isinstance(samples, bool):
        return False
    return samples >= 1 if is_count(samples) else 0 < samples <= 1


def is_count(samples: float) -> bool:
    """Tell whether samples are counted, not a share of each class."""
    return isinstance(samples, int | np.integer)


def require(condition: bool, message: str) -> None:
    """Raise `InputError` (`BAD_SETTING`) with a message unless a condition holds."""
    if not condition:
        raise InputError(message, code="BAD_SETTING")
