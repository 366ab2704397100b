"""From pixels to the points between which the complexity measure looks for neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunecli.errors import InputError
from prunecli.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Points: TypeAlias = NDArray[np.float32]

Embedding: TypeAlias = Callable[[Points, int | None, int], Points]
"""From pixels in 0 to 1 as rows [n, C * H * W], a size (None: not given) and a seed to [n, d]."""

EMBEDDINGS: Registry[Embedding] = Registry("embedding")


def embed_pixels(
    images: Tensor | NDArray[np.uint8], *, kind: str = "pca-10", seed: int = 0
) -> Points:
    """Return uint8 images [n, C, H, W] as float32 points [n, d].

    `kind` is the name of an embedding, with its size after a dash where it takes one: `raw`,
    `pca-10`. Raises `InputError`: `UNKNOWN_EMBEDDING`, `BAD_EMBEDDING` (a size that is missing,
    not wanted or impossible).
    """
    name, size = _parse(kind)
    pixels = np.asarray(images)
    rows = pixels.reshape(len(pixels), -1).astype(np.float32)
    rows /= np.float32(255)
    return EMBEDDINGS.get(name)(rows, size, seed)


@EMBEDDINGS.register("raw", summary="the pixels themselves, as numbers from 0 to 1")
def raw(pixels: Points, size: int | None, seed: int) -> Points:  # noqa: ARG001
    """Return the pixels as they are."""
    if size is not None:
        raise InputError("the embedding 'raw' takes no size", code="BAD_EMBEDDING")
    return pixels


@EMBEDDINGS.register("pca", summary="the first N principal components of the pixels: pca-N")
def pca(pixels: Points, size: int | None, seed: int) -> Points:
    """Return the first `size` principal components, not whitened; the scale is that of pixels."""
    from sklearn.decomposition import PCA

    most = min(pixels.shape)
    if size is None or not 1 <= size <= most:
        raise InputError(
            f"the embedding 'pca' takes a size from 1 to {most} here, not {size}",
            code="BAD_EMBEDDING",
            hint="write it after a dash: pca-10",
        )
    with np.errstate(invalid="ignore"):  # shares of a variance of zero, when all images are equal
        points = PCA(size, random_state=seed).fit_transform(pixels)
    return np.asarray(points, dtype=np.float32)


def _parse(kind: str) -> tuple[str, int | None]:
    name, dash, size = kind.rpartition("-")
    return (name, int(size)) if dash and size.isascii() and size.isdigit() else (kind, None)
