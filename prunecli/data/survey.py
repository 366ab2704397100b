"""Look at every image once: its size, whether it can be read, whether it comes twice."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from prunecli.data.decode import to_image
from prunecli.data.near_duplicates import Thumbnails, near_duplicates, thumbnail
from prunecli.data.source import Arrays, DataSource, RawSplit, labels_of, names_of
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHUNK = 256
"""Images that one thread looks at before it reports."""

TINY = 8
"""Pixels of its shorter side below which an image is called tiny."""

HUGE = 25_000_000
"""Pixels above which an image is called huge: decoding it costs more than training on it."""

GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"})


@dataclass(frozen=True)
class Survey:
    """What the images of a data set were found to be.

    `sizes` counts (width, height) and `modes` Pillow's words for pixels (`RGB`, `L`), the commonest
    first; `kinds` counts what deserves a look (`tiny`, `huge`, `animated`, `CMYK`, `16-bit`, `grey
    among colour`). `duplicates` are groups of names of images with the same content, `mislabelled`
    the number of groups that are in more than one class, `leaked` in more than one split;
    `near_duplicates` are groups of those that only look the same (`prunecli.data.near_duplicates`).
    """

    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    unreadable: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    mislabelled: int
    leaked: int
    kinds: Mapping[str, int]
    near_duplicates: tuple[tuple[str, ...], ...]

    @property
    def is_grey(self) -> bool:
        """Whether no image has colour."""
        return all(mode in GREY_MODES for mode in self.modes)


@dataclass(frozen=True)
class _Look:
    """One image: a digest of its content, its size, its mode, its frames, and a small picture."""

    digest: bytes
    size: tuple[int, int]
    mode: str
    frames: int
    thumbnail: Thumbnails


KINDS: Mapping[str, Callable[[_Look], bool]] = {
    "tiny": lambda look: min(look.size) < TINY,
    "huge": lambda look: look.size[0] * look.size[1] > HUGE,
    "animated": lambda look: look.frames > 1,
    "CMYK": lambda look: look.mode == "CMYK",
    "16-bit": lambda look: look.mode.startswith("I"),
}


@dataclass(frozen=True)
class _Place:
    name: str
    split: str
    label: int


def survey(source: DataSource, *, progress: Progress = silent) -> Survey:
    """Decode every image of every split, in parallel, keeping nothing but what `Survey` says.

    The content of an image file is its bytes, that of an image in an array its pixels.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    unreadable: list[str] = []
    places: dict[bytes, list[_Place]] = {}
    kinds: Counter[str] = Counter()
    thumbnails: list[Thumbnails] = []
    for place, look in _look_at_all(source, progress):
        if look is None:
            unreadable.append(place.name)
            continue
        sizes[look.size] += 1
        modes[look.mode] += 1
        kinds.update(name for name, applies in KINDS.items() if applies(look))
        if look.digest not in places:
            thumbnails.append(look.thumbnail)
        places.setdefault(look.digest, []).append(place)
    greys = sum(count for mode, count in modes.items() if mode in GREY_MODES)
    if 0 < greys < modes.total():
        kinds["grey among colour"] = greys
    first = [group[0].name for group in places.values()]
    pictures = np.stack(thumbnails) if thumbnails else np.zeros((0, 8, 9), np.uint8)
    twins = [group for group in places.values() if len(group) > 1]
    return Survey(
        sizes=dict(sizes.most_common()),
        modes=dict(modes.most_common()),
        unreadable=tuple(unreadable),
        duplicates=tuple(tuple(place.name for place in group) for group in twins),
        mislabelled=sum(len({place.label for place in group}) > 1 for group in twins),
        leaked=sum(len({place.split for place in group}) > 1 for group in twins),
        kinds=dict(kinds),
        near_duplicates=tuple(
            tuple(first[at] for at in group) for group in near_duplicates(pictures)
        ),
    )


def _look_at_all(source: DataSource, progress: Progress) -> Iterator[tuple[_Place, _Look | None]]:
    total = sum(len(raw) for raw in source.splits.values())
    done = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for split, raw in source.splits.items():
            prefix = split if isinstance(raw, Arrays) else ""
            places = (
                _Place(prefix + name, split, label)
                for name, label in zip(names_of(raw), labels_of(raw).tolist(), strict=True)
            )
            for looks in pool.map(partial(_look_at, raw), range(0, len(raw), CHUNK)):
                # `looks` comes first, so that zip takes no place that it has no look for.
                yield from ((place, look) for look, place in zip(looks, places, strict=False))
                done += len(looks)
                progress(Step("look at images", done, total))


def _look_at(raw: RawSplit, start: int) -> list[_Look | None]:
    """Return what the images from `start` on are; None for one that cannot be read."""
    stop = min(start + CHUNK, len(raw))
    return [_look(raw, position) for position in range(start, stop)]


def _look(raw: RawSplit, position: int) -> _Look | None:
    if isinstance(raw, Arrays):
        image = to_image(raw.images[position])
        return _Look(_digest(image.tobytes()), image.size, image.mode, 1, thumbnail(image))
    try:
        content = raw[position].path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            frames = getattr(image, "n_frames", 1)
            image.load()
            small = thumbnail(image)
            return _Look(_digest(content), image.size, image.mode, frames, small)
    except Exception:  # noqa: BLE001 - Pillow's plug-ins raise anything on a broken file
        return None


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
