"""Which images are trained on, held out and tested on: never by chance twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.data.source import DataSource, RawSplit, join, labels_of, select
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

TEST_SHARE = 0.2
"""Share of a data set without folders for its splits that becomes its test split."""

TEST_SEED = 0
"""Seed of that division, whatever the run's: else one run could test on what another learnt."""

_TEST, _HELD_OUT, _LIMIT = range(3)  # each draw has its own random stream


@dataclass(frozen=True)
class _Request:
    source: DataSource
    seed: int
    held_out: float


def available_splits(source: DataSource) -> tuple[str, ...]:
    """Return the names that `load_split` takes for this source."""
    on_disk = set(source.splits)
    trained = bool(on_disk & {"train", "all"})
    held_out = trained or "val" in on_disk
    tested = bool(on_disk & {"test", "all"})
    answers = {"train": trained, "held_out": held_out, "test": tested, "all": True}
    return tuple(name for name, there in answers.items() if there)


def evaluation_split(source: DataSource, *, trained: bool = False) -> str:
    """Return the split that a score is to be reported on: never one that was trained on.

    A folder that is called `test` or `val` itself, and holds the classes directly, is all test,
    unless the run at hand has `trained` on it.
    """
    whole = set(source.splits) == {"all"} and source.path.name.lower() in TEST_NAMES
    if whole and not trained:
        return "all"
    return "test" if "test" in available_splits(source) else "held_out"


TEST_NAMES = frozenset({"test", "testing", "val", "valid", "validation", "eval"})


def choose(
    source: DataSource,
    split: str,
    *,
    seed: int = 0,
    held_out: float = 0.1,
    limit: int | None = None,
) -> RawSplit:
    """Return the images of `split`: `train`, `held_out`, `test` or `all`.

    `held_out` is the share taken from the training images where the data set has no `val`;
    `limit` keeps that many images, as evenly over the classes as they come. Raises `InputError`:
    `UNKNOWN_SPLIT`.
    """
    known = available_splits(source)
    if split not in known:
        raise InputError(
            f"the data set has no split {split!r}",
            code="UNKNOWN_SPLIT",
            where=str(source.path),
            hint=f"it has: {', '.join(known)}",
        )
    chosen = _CHOICES[split](_Request(source, seed, held_out))
    if limit is None or limit >= len(chosen):
        return chosen
    return select(chosen, even_sample(labels_of(chosen), limit, seed=seed))


def stratified_split(
    labels: NDArray[np.int64], share: float, *, seed: int, stream: int = _HELD_OUT
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide positions into (kept, taken), with `share` of every class taken.

    A class of two or more images gives at least one and keeps at least one; a single image is kept.
    """
    taken = [np.zeros(0, dtype=np.int64)]
    for label, members in _members(labels):
        wanted = min(max(round(len(members) * share), 1), len(members) - 1) if share > 0 else 0
        shuffled = _random(seed, stream, label).permutation(members)
        taken.append(shuffled[:wanted])
    is_taken = np.zeros(len(labels), dtype=np.bool_)
    is_taken[np.concatenate(taken)] = True
    return np.flatnonzero(~is_taken), np.flatnonzero(is_taken)


def even_sample(labels: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Return `count` positions, ascending, drawn from all classes in turn."""
    turn = np.empty(len(labels), dtype=np.int64)
    for label, members in _members(labels):
        turn[members] = _random(seed, _LIMIT, label).permutation(len(members))
    order = np.lexsort((labels, turn))
    return np.sort(order[:count])


def _members(labels: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield every label with its positions, ascending: one sort, however many classes there are."""
    order = np.argsort(labels, kind="stable")
    found, starts = np.unique(labels[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]), strict=False)


def _random(seed: int, stream: int, label: int) -> np.random.Generator:
    return np.random.default_rng([seed % 2**63, stream, label])


def _divide_all(request: _Request) -> tuple[RawSplit, RawSplit]:
    everything = request.source.splits["all"]
    labels = labels_of(everything)
    kept, taken = stratified_split(labels, TEST_SHARE, seed=TEST_SEED, stream=_TEST)
    return select(everything, kept), select(everything, taken)


def _training_images(request: _Request) -> RawSplit:
    if "train" in request.source.splits:
        return request.source.splits["train"]
    return _divide_all(request)[0]


def _train(request: _Request) -> RawSplit:
    images = _training_images(request)
    if "val" in request.source.splits:
        return images
    kept, _ = stratified_split(labels_of(images), request.held_out, seed=request.seed)
    return select(images, kept)


def _held_out(request: _Request) -> RawSplit:
    if "val" in request.source.splits:
        return request.source.splits["val"]
    images = _training_images(request)
    _, taken = stratified_split(labels_of(images), request.held_out, seed=request.seed)
    return select(images, taken)


def _test(request: _Request) -> RawSplit:
    if "test" in request.source.splits:
        return request.source.splits["test"]
    return _divide_all(request)[1]


def _everything(request: _Request) -> RawSplit:
    return join(tuple(request.source.splits.values()))


_CHOICES: dict[str, Callable[[_Request], RawSplit]] = {
    "train": _train,
    "held_out": _held_out,
    "test": _test,
    "all": _everything,
}
