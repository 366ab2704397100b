"""Labelled points, and what lies around some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.complexity.neighbours import Floats, Indices, nearest_neighbours
from prunecli.complexity.products import check_table, span
from prunecli.complexity.volumes import VOLUMES
from prunecli.errors import InputError
from prunecli.wording import some

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray

    from prunecli.progress import Progress


@dataclass(frozen=True, eq=False)
class Labelled:
    """Features with classes numbered from zero; `rows` are their positions in the caller's."""

    features: NDArray[np.generic]
    targets: Indices
    classes: tuple[object, ...]
    counts: Indices
    rows: Indices
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, features: ArrayLike, labels: ArrayLike, min_class_size: int) -> Labelled:
        """Return them with classes numbered, without those of fewer than `min_class_size`."""
        points, named = np.asarray(features), np.asarray(labels)
        check_table(points)
        _check_labels(named, len(points))
        names, targets, counts = np.unique(named, return_inverse=True, return_counts=True)
        small = counts < min_class_size
        warnings: tuple[str, ...] = ()
        rows = np.arange(len(points))
        if small.any():
            span(points)  # what is left out must be finite too
            rows = np.flatnonzero(~small[targets])
            lost = some(names[small].tolist())
            warnings = (f"classes of fewer than {min_class_size} samples are left out: {lost}",)
            points, targets = points[rows], (np.cumsum(~small) - 1)[targets[rows]]
        names, counts = names[~small], counts[~small]
        if len(names) < 2:
            raise InputError(
                f"complexity needs two classes or more, there is {len(names)}", code="ONE_CLASS"
            )
        return cls(points, targets, tuple(names.tolist()), counts, rows, warnings)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The nearest rows [m, k] of some rows [m, ascending] of labelled points, with log volumes [m].

    All draws of all repeats share one of these, so that a result holds no more than which were
    drawn.
    """

    data: Labelled
    rows: Indices
    nearest: Indices
    log_volumes: Floats

    def through(self, volume: str, workspace: int) -> Surroundings:
        """Return the same neighbours with another volume."""
        volumes = VOLUMES.get(volume)(self.data.features, self.rows, self.nearest, workspace)
        return Surroundings(self.data, self.rows, self.nearest, volumes)


def look_around(
    data: Labelled,
    rows: Indices,
    *,
    neighbours: int,
    workspace: int,
    device: torch.device | str,
    progress: Progress,
) -> Surroundings:
    """Return what lies around `rows`, each looked at once, without volumes yet."""
    rows = np.unique(rows)
    found = nearest_neighbours(
        data.features,
        rows,
        neighbours=neighbours,
        workspace=workspace,
        device=device,
        progress=progress,
    )
    return Surroundings(data, rows, found.indices, np.zeros(len(rows)))


def _check_labels(labels: NDArray[np.generic], count: int) -> None:
    if labels.ndim != 1 or len(labels) != count:
        raise InputError(
            f"labels must be one per sample [{count}], not of shape {labels.shape}",
            code="BAD_LABELS",
            hint="turn one-hot labels into class numbers or names",
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise InputError("labels hold NaN or infinities", code="BAD_LABELS")
