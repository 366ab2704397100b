"""Training images, each changed by itself, decoded ahead of the training by other processes."""

from __future__ import annotations

import os
import signal
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from prunecli.lifetime.interrupts import held_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from prunecli.data.images import Batch, ImageSet

AHEAD = 2
"""Batches that every process, or all threads together, are ahead of the training."""

Read: TypeAlias = list[Tensor | None]


@dataclass(frozen=True)
class Change:
    """What happens to each image: by torch's own generator, seeded for every position.

    With `whole` it is given the picture in the size of its file.
    """

    change: Callable[[Tensor], Tensor]
    seed: Callable[[int], int]
    whole: bool = False

    def read(self, images: ImageSet, position: int) -> Tensor | None:
        """Return the image that is changed, as it is before."""
        return images.picture(position) if self.whole else images.example(position)

    def apply(self, image: Tensor | None, position: int) -> Tensor | None:
        """Return an image changed; what a position is changed to does not depend on others."""
        if image is None:
            return None
        torch.manual_seed(self.seed(position))
        return self.change(image)


def changed(
    images: ImageSet, batches: Sequence[Tensor], change: Change, *, workers: int
) -> Iterator[Batch]:
    """Yield the images and labels at each tensor of positions, each image changed.

    `workers` processes read and change them; without any, threads read, and this process changes.
    What cannot be read is left out, and a batch of which nothing can be read is not there.
    """
    found = _by_processes if workers else _by_threads
    for positions, read in zip(batches, found(images, batches, change, workers), strict=True):
        whole = [index for index, image in enumerate(read) if image is not None]
        if len(whole) < len(read):
            lost = set(range(len(read))) - set(whole)
            images.miss(images.paths[int(positions[index])] for index in lost)
        if whole:
            pixels = torch.stack([image for image in read if image is not None])
            yield pixels, images.labels[positions[whole]]


class _Examples(Dataset[Tensor | None]):
    def __init__(self, images: ImageSet, change: Change) -> None:
        self.images, self.change = images, change

    def __getitem__(self, position: int) -> Tensor | None:
        return self.change.apply(self.change.read(self.images, position), position)


def _by_processes(
    images: ImageSet, batches: Sequence[Tensor], change: Change, workers: int
) -> Iterator[Read]:
    loader = DataLoader(
        _Examples(images, change),
        batch_sampler=[batch.tolist() for batch in batches],
        num_workers=min(workers, max(len(batches), 1)),
        collate_fn=list,
        worker_init_fn=_alone,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",
    )
    with held_interrupts():  # a process that is forked while a signal is answered answers it too
        waiting = iter(loader)
    yield from waiting


def _alone(_: int) -> None:
    """Let the process that trains answer signals, and use one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _by_threads(
    images: ImageSet, batches: Sequence[Tensor], change: Change, _: int
) -> Iterator[Read]:
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        ahead: deque[list[Future[Tensor | None]]] = deque()
        waiting = iter(batches)
        try:
            for positions in batches:
                while len(ahead) <= AHEAD and (upcoming := next(waiting, None)) is not None:
                    ahead.append([pool.submit(change.read, images, at) for at in upcoming.tolist()])
                yield [
                    change.apply(future.result(), at)
                    for future, at in zip(ahead.popleft(), positions.tolist(), strict=True)
                ]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
