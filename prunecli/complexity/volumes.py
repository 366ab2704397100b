"""How much room a sample's neighbours take: what a vote is divided by to become a density."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunecli.complexity.neighbours import Floats, Indices
from prunecli.complexity.products import CACHED
from prunecli.registry import Registry

LogVolumes: TypeAlias = Callable[[NDArray[np.generic], Indices, Indices, int], Floats]
"""From features [N, d], rows [m], their neighbours [m, k] and a workspace in bytes to logs [m]."""

VOLUMES: Registry[LogVolumes] = Registry("volume")


@VOLUMES.register(
    "box",
    summary="The axis-aligned box around a sample that just holds its neighbours.",
    source="reference implementation of Branchaud-Charron, Achkar, Jodoin, CVPR 2019",
)
def log_box_volumes(
    features: NDArray[np.generic], rows: Indices, neighbours: Indices, workspace: int
) -> Floats:
    """Return log prod_r 2 max_t |x_tr - x_mr| over features r and neighbours t; -inf if flat.

    In logs, because a product over thousands of features over- or underflows.
    """
    result = np.empty(len(rows), dtype=np.float64)
    step = max(1, min(workspace, CACHED) // (16 * features.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        centres = features[rows[part]].astype(np.float64)
        widths = np.zeros_like(centres)
        for column in neighbours[part].T:
            np.maximum(widths, np.abs(features[column] - centres), out=widths)
        with np.errstate(divide="ignore"):
            result[part] = np.log(2 * widths).sum(axis=1)
    return result


@VOLUMES.register(
    "none",
    summary="No volume: plain votes of the neighbours, steadier and free of scale.",
)
def no_volume(
    features: NDArray[np.generic],  # noqa: ARG001 - every volume takes the same arguments
    rows: Indices,
    neighbours: Indices,  # noqa: ARG001
    workspace: int,  # noqa: ARG001
) -> Floats:
    """Return the logarithm of one for every row."""
    return np.zeros(len(rows), dtype=np.float64)
