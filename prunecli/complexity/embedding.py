"""From pixels to the points between which the complexity measure looks for neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from prunecli.errors import InputError
from prunecli.progress import Progress, Step, silent
from prunecli.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Points: TypeAlias = NDArray[np.float32]

Features: TypeAlias = Callable[["Tensor"], Points]
"""From uint8 images [n, C, H, W] to what a network makes of them, [n, d]."""

EPOCHS = 10
"""Epochs of the autoencoder; the paper's experiments take 100, which a CPU has no time for."""


DIMENSIONS = 3
"""Those of t-SNE where none are asked for, as in the paper's experiments."""

PERPLEXITY = 30.0
"""That of t-SNE, scikit-learn's default; a third of the images where they are few."""


WORDS = {
    "raw": "pixels from 0 to 1",
    "pca": "{size} principal components, not whitened",
    "tsne": "t-SNE in {size} dimensions (perplexity {perplexity:g}, from principal components)",
    "autoencoder": "128 codes of an autoencoder ({epochs} epochs)",
    "model": "what the last layer of the model reads",
}
"""What every embedding does, as reports say it."""


@dataclass(frozen=True)
class Request:
    """What an embedding may ask for beside the images: its size, a seed, a network, an effort."""

    size: int | None
    seed: int
    features: Features | None
    epochs: int
    device: torch.device | str
    progress: Progress


@dataclass(frozen=True)
class OfImages:
    """An embedding that looks at uint8 images [n, C, H, W]: the first of a chain."""

    function: Callable[[Tensor, Request], Points]


@dataclass(frozen=True)
class OfPoints:
    """An embedding of points [n, d], of pixels or of what another embedding made of them."""

    function: Callable[[Points, Request], Points]


EMBEDDINGS: Registry[OfImages | OfPoints] = Registry("embedding")


def embed_pixels(
    images: Tensor | NDArray[np.uint8],
    *,
    kind: str = "pca-10",
    seed: int = 0,
    features: Features | None = None,
    epochs: int = EPOCHS,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Points:
    """Return uint8 images [n, C, H, W] as float32 points [n, d].

    `kind` is the name of an embedding, with its size after a dash where it takes one (`raw`,
    `pca-10`), or a chain of them (`autoencoder+tsne`). What a network learned is made uniform in
    every feature at the end, as the reference's experiments do, lest a few far values decide about
    all volumes; t-SNE needs no such thing. An autoencoder is trained on `device`. Raises
    `InputError`: `UNKNOWN_EMBEDDING`, `BAD_EMBEDDING` (a size that is missing, not wanted or
    impossible), `EMBEDDING_NEEDS_MODEL`, `BAD_SETTING`.
    """
    request = Request(None, seed, features, epochs, device, progress)
    pixels = torch.as_tensor(images)
    chain = parse(kind)
    (first, size), *others = chain
    embedding = EMBEDDINGS.get(first)
    if isinstance(embedding, OfImages):
        points = embedding.function(pixels, replace(request, size=size))
    else:
        points, others = flat_pixels(pixels), list(chain)
    for name, size in others:
        points = _of_points(name).function(points, replace(request, size=size))
    return uniform_features(points) if _made_uniform(chain) else points


def described(kind: str, *, epochs: int = EPOCHS) -> str:
    """Return what a chain of embeddings does to images, its defaults included, in words.

    >>> described("raw+tsne")
    'pixels from 0 to 1, then t-SNE in 3 dimensions (perplexity 30, from principal components)'
    """
    chain = parse(kind)
    steps = [
        WORDS[name].format(size=size or DIMENSIONS, perplexity=PERPLEXITY, epochs=epochs)
        for name, size in chain
    ]
    return ", then ".join([*steps, *(["uniform quantiles"] if _made_uniform(chain) else [])])


def _made_uniform(chain: Sequence[tuple[str, int | None]]) -> bool:
    """Say whether a chain starts with what is learned from images, and does not end in t-SNE."""
    (first, _), (last, _) = chain[0], chain[-1]
    learned = isinstance(EMBEDDINGS.get(first), OfImages) and first != "raw"
    return learned and last != "tsne"


def parse(kind: str) -> tuple[tuple[str, int | None], ...]:
    """Return the names and sizes of a chain; raises `UNKNOWN_EMBEDDING`.

    >>> parse("autoencoder+pca-8")
    (('autoencoder', None), ('pca', 8))
    """
    links = []
    for part in kind.split("+"):
        name, dash, size = part.rpartition("-")
        sized = dash and size.isascii() and size.isdigit()
        links.append((name, int(size)) if sized else (part, None))
    for name, _ in links:
        EMBEDDINGS.get(name)
    return tuple(links)


def _of_points(name: str) -> OfPoints:
    embedding = EMBEDDINGS.get(name)
    if isinstance(embedding, OfImages):
        raise InputError(
            f"the embedding {name!r} looks at images, not at what another makes of them",
            code="BAD_EMBEDDING",
            hint=f"put it first: {name}+...",
        )
    return embedding


def flat_pixels(images: Tensor) -> Points:
    """Return images as rows of numbers from 0 to 1."""
    rows = images.reshape(len(images), -1).numpy().astype(np.float32)
    rows /= np.float32(255)
    return rows


def uniform_features(points: Points) -> Points:
    """Return points with every feature mapped to its quantiles, uniform in 0 to 1."""
    from sklearn.preprocessing import quantile_transform

    found = quantile_transform(
        points.astype(np.float64), n_quantiles=min(1000, len(points)), random_state=0, copy=True
    )
    return np.asarray(found, np.float32)


def raw(images: Tensor, request: Request) -> Points:
    """Return the pixels as they are."""
    _no_size("raw", request)
    return flat_pixels(images)


def pca(points: Points, request: Request) -> Points:
    """Return the first `size` principal components, not whitened; the scale is that of pixels."""
    from sklearn.decomposition import PCA

    most = min(points.shape)
    size = request.size
    if size is None or not 1 <= size <= most:
        raise InputError(
            f"the embedding 'pca' takes a size from 1 to {most} here, not {size}",
            code="BAD_EMBEDDING",
            hint="write it after a dash: pca-10",
        )
    with np.errstate(invalid="ignore"):  # shares of a variance of zero, when all images are equal
        found = PCA(size, random_state=request.seed).fit_transform(points)
    return np.asarray(found, dtype=np.float32)


def tsne(points: Points, request: Request) -> Points:
    """Return points in 2 or 3 dimensions whose neighbours are those of `points`, by t-SNE.

    Scaled by the largest value, as the reference's experiments do. It is fitted to these points
    alone: other data needs another run. By scikit-learn: openTSNE was no faster on one core (10,000
    images of MNIST: 59 s against 57 s) and kept neighbours no better (trustworthiness 0.968 both).
    """
    from sklearn.manifold import TSNE

    size = DIMENSIONS if request.size is None else request.size
    if size not in {2, 3}:
        raise InputError(
            f"the embedding 'tsne' has 2 or 3 dimensions, not {size}", code="BAD_EMBEDDING"
        )
    scaled = points / (np.abs(points).max() or 1.0)
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    request.progress(Step("t-SNE", 0))
    found = TSNE(
        size, perplexity=perplexity, init="pca", random_state=request.seed, n_jobs=-1
    ).fit_transform(scaled)
    return np.asarray(found, np.float32)


def autoencoder(images: Tensor, request: Request) -> Points:
    """Return the codes [n, 128] of a convolutional autoencoder trained on the images."""
    from prunecli.complexity.autoencoder import codes

    _no_size("autoencoder", request)
    if request.epochs < 1:
        raise InputError(
            f"an autoencoder is trained for an epoch or more, not {request.epochs}",
            code="BAD_SETTING",
        )
    return codes(
        images,
        seed=request.seed,
        epochs=request.epochs,
        device=request.device,
        progress=request.progress,
    )


def model(images: Tensor, request: Request) -> Points:
    """Return what the last layer of a network reads, [n, d]."""
    _no_size("model", request)
    if request.features is None:
        raise InputError(
            "the embedding 'model' takes the features of a model, and none was given",
            code="EMBEDDING_NEEDS_MODEL",
            hint="name one: --model resnet56.th",
        )
    return request.features(images)


def _no_size(name: str, request: Request) -> None:
    if request.size is not None:
        raise InputError(f"the embedding {name!r} takes no size", code="BAD_EMBEDDING")


EMBEDDINGS.add("raw", OfImages(raw), summary="the pixels themselves, as numbers from 0 to 1")
EMBEDDINGS.add(
    "pca", OfPoints(pca), summary="the first N principal components of the pixels: pca-N"
)
EMBEDDINGS.add(
    "tsne",
    OfPoints(tsne),
    summary="t-SNE in 2 or 3 dimensions (3 by default): tsne-2",
    source="van der Maaten, Hinton 2008",
)
EMBEDDINGS.add(
    "autoencoder",
    OfImages(autoencoder),
    summary="codes of a convolutional autoencoder; autoencoder+tsne is the paper's headline",
    source="Branchaud-Charron, Achkar, Jodoin, CVPR 2019",
)
EMBEDDINGS.add("model", OfImages(model), summary="what the last layer of --model reads")
