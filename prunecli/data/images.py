"""Decoded images, in memory or streamed, handed out in batches."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prunecli.processes import Processes

Batch: TypeAlias = tuple[Tensor, Tensor]
"""uint8 images [b, C, H, W] and int64 labels [b], or uint8 masks [b, H, W]."""


def images_of(split: str, count: int | None = None) -> str:
    """Return what to call images of a split, with their number where it is given.

    >>> images_of("train", 2), images_of("held_out", 1), images_of("all")
    ('2 train images', '1 held-out image', 'images')
    """
    kind = "" if split == "all" else f"{split.replace('_', '-')} "
    return f"{kind}images" if count is None else counted(count, f"{kind}image")


def plan_batches(
    count: int, batch_size: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, ...]:
    """Return the positions of every batch, in order or shuffled by `generator`."""
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    return torch.split(order, batch_size) if count else ()


@dataclass(frozen=True, eq=False)
class ImageSet(ABC):
    """Images of one split with int64 `labels` [n]; `paths` says what each image is called.

    Where they have masks (`has_masks`), batches hold these in place of labels.
    """

    labels: Tensor
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    split: str
    warnings: tuple[str, ...]
    has_masks: bool = field(default=False, kw_only=True)
    whole: Callable[[int], Tensor | None] | None = field(default=None, kw_only=True)
    """Gives an image in the size that it has in its file; None: `example` is all there is."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def images(self) -> Tensor:
        """All images, uint8 [n, C, H, W]; a streamed set decodes them all for this."""

    @abstractmethod
    def gather(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield the images and labels at each tensor of positions."""

    def masks(self) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        """Yield the masks of all images in batches, with what the images are called."""
        for batch in plan_batches(len(self), 64):
            for _, masks in self.gather([batch]):
                yield tuple(self.paths[at] for at in self.readable(batch).tolist()), masks

    @abstractmethod
    def example(self, position: int) -> Tensor | None:
        """Return one image, uint8 [C, H, W]; None for one that cannot be read."""

    def picture(self, position: int) -> Tensor | None:
        """Return one image as it is in its file, uint8 [C, h, w]; None where it cannot be read."""
        found = None if self.whole is None else self.whole(position)
        return self.example(position) if found is None else found

    def miss(self, names: Iterable[str]) -> None:  # noqa: B027 - in memory all have been read
        """Remember images that could not be read where others read them."""

    def found(self) -> tuple[str, ...]:
        """Return the warnings, with those that only reading the images brought up."""
        return self.warnings

    def hear(self, processes: Processes) -> None:  # noqa: B027 - in memory all have been read
        """Take in what others of several `processes`, which all call this, could not read."""

    def readable(self, positions: Tensor) -> Tensor:
        """Return those of some positions whose images were read when they were last gathered."""
        return positions

    def iterate(
        self, batch_size: int, *, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Yield all images in batches, in order or shuffled by `generator`."""
        return self.gather(plan_batches(len(self), batch_size, generator=generator))


@dataclass(frozen=True, eq=False)
class MemoryImageSet(ImageSet):
    """Images decoded once: `pixels` is uint8 [n, C, H, W]."""

    pixels: Tensor

    @property
    def images(self) -> Tensor:
        """All images, uint8 [n, C, H, W]."""
        return self.pixels

    def example(self, position: int) -> Tensor:
        """Return one image, uint8 [C, H, W]."""
        return self.pixels[position]

    def gather(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield the images and labels at each tensor of positions."""
        for positions in batches:
            yield self.pixels[positions], self.labels[positions]


@dataclass(frozen=True, eq=False)
class StreamedImageSet(ImageSet):
    """Images decoded anew whenever they are asked for, by threads that run ahead of the reader.

    `decode(position)` returns uint8 [C, H, W], or None for a file that cannot be read; its name is
    then found in `unreadable` and its batch is one smaller. A mask is the last channel.
    """

    decode: Callable[[int], Tensor | None]
    unreadable: set[str] = field(default_factory=set)
    threads: int = field(default_factory=lambda: min(os.cpu_count() or 1, 16))

    @property
    def images(self) -> Tensor:
        """All images, decoded now: uint8 [n, C, H, W]."""
        return torch.cat([images for images, _ in self.iterate(256)])

    def gather(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield the images and labels at each tensor of positions."""
        with ThreadPoolExecutor(self.threads) as pool:
            ahead: deque[list[Future[Tensor | None]]] = deque()
            waiting = iter(batches)
            try:
                for positions in batches:
                    while len(ahead) < 3 and (upcoming := next(waiting, None)) is not None:
                        ahead.append([pool.submit(self.decode, p) for p in upcoming.tolist()])
                    batch = self._collect(positions, ahead.popleft())
                    if batch is not None:
                        yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def example(self, position: int) -> Tensor | None:
        """Return one image, decoded now: uint8 [C, H, W]; None for one that cannot be read."""
        return self.decode(position)

    def miss(self, names: Iterable[str]) -> None:
        """Remember images that could not be read where others read them."""
        self.unreadable.update(names)

    def found(self) -> tuple[str, ...]:
        """Return the warnings, with the number of images that could not be read so far."""
        lost = sorted(self.unreadable)
        if not lost:
            return self.warnings
        note = f"{images_of(self.split, len(lost))} cannot be read, left out, such as {lost[0]}"
        return (*self.warnings, note)

    def hear(self, processes: Processes) -> None:
        """Take in what others of several `processes`, which all call this, could not read."""
        self.unreadable.update(*processes.gathered(sorted(self.unreadable)))

    def readable(self, positions: Tensor) -> Tensor:
        """Return those of some positions whose images were read when they were last gathered."""
        whole = [self.paths[at] not in self.unreadable for at in positions.tolist()]
        return positions[torch.tensor(whole, dtype=torch.bool)]

    def _collect(self, positions: Tensor, futures: list[Future[Tensor | None]]) -> Batch | None:
        decoded = [future.result() for future in futures]
        whole = [index for index, image in enumerate(decoded) if image is not None]
        if len(whole) < len(decoded):
            lost = set(range(len(decoded))) - set(whole)
            self.unreadable.update(self.paths[int(positions[index])] for index in lost)
        images = [image for image in decoded if image is not None]
        if not images:
            return None
        stacked = torch.stack(images)
        if self.has_masks:
            return stacked[:, :-1], stacked[:, -1]
        return stacked, self.labels[positions[whole]]
