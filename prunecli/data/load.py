"""Decode one split of a data set, once, for one network."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prunecli.architectures.inputs import check_takes_images
from prunecli.data.decode import (
    mode_for,
    read_image,
    to_image,
    to_pixels,
    whole_pixels,
)
from prunecli.data.images import ImageSet, MemoryImageSet, StreamedImageSet, images_of
from prunecli.data.masks import read_mask
from prunecli.data.source import (
    Arrays,
    DataSource,
    Packed,
    Pairs,
    RawSplit,
    content_of,
    labels_of,
    names_of,
)
from prunecli.data.splits import choose
from prunecli.errors import InputError
from prunecli.files import current
from prunecli.progress import Progress, Step, silent
from prunecli.wording import some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from prunecli.architectures.reference import InputSpec

MEMORY_LIMIT = 4 * 2**30
"""Bytes of decoded pixels above which images are streamed instead of kept."""

CROPPED = 4
"""How many times as wide as the input a photograph is decoded at the least, if it is as large: a
crop of 8 % of its area is then still larger than the input."""

CHUNK = 512
"""Images that one thread decodes before it reports."""


@dataclass(frozen=True)
class _Decoded:
    """One image, with its mask if it has one, or why there is none."""

    pixels: NDArray[np.uint8] | None
    converted: str = ""
    mask: NDArray[np.uint8] | None = None


def load_split(
    source: DataSource,
    split: str,
    *,
    input: InputSpec,  # noqa: A002 - the word that a network's input goes by everywhere here
    seed: int = 0,
    limit: int | None = None,
    held_out: float = 0.1,
    memory_limit: int = MEMORY_LIMIT,
    progress: Progress = silent,
) -> ImageSet:
    """Decode the images of `split` to `input`'s channels and size as uint8 [n, C, H, W].

    Files that cannot be read are left out and named in `warnings`. Above `memory_limit` bytes the
    images are streamed. Raises `InputError`: `UNKNOWN_SPLIT`, `EMPTY_CLASS` (a class without any
    image to train on), `UNREADABLE_IMAGES` (all of them), `UNSUPPORTED_CHANNELS`,
    `NOT_IMAGES`, `MASK_SIZE`, `BAD_MASK`, and what `check_takes_images` raises.
    """
    check_takes_images(input)
    mode_for(input)
    check_every_class(source, split)
    raw = choose(source, split, seed=seed, held_out=held_out, limit=limit)
    _check_images(source, raw)
    decode = _decoder(raw, input)
    shape = (input.channels, input.height, input.width)
    if len(raw) * math.prod(shape) > memory_limit:
        return _streamed(source, split, raw, decode, input)
    return _decoded(source, split, raw, decode, input_spec=input, progress=progress)


def _check_images(source: DataSource, raw: RawSplit) -> None:
    if isinstance(raw, Arrays) and raw.are_features:
        raise InputError(
            f"the data set holds features {list(raw.images.shape)}, no images",
            code="NOT_IMAGES",
            where=str(source.path),
            hint="prunecli analyze takes it; a model needs images",
        )


def check_every_class(source: DataSource, split: str) -> None:
    """Raise `EMPTY_CLASS` when a class to be trained has no image at all."""
    if split != "train" or source.has_masks:
        return
    raw = source.splits.get("train", source.splits.get("all", ()))
    counts = np.bincount(labels_of(raw), minlength=len(source.classes))
    empty = [name for name, count in zip(source.classes, counts, strict=True) if not count]
    if empty:
        raise InputError(
            f"no image to train on for {some(empty)}",
            code="EMPTY_CLASS",
            where=str(source.path),
            hint="add images to the class, or remove its folder from every split",
        )


def check_classes(
    model_classes: int,
    source: DataSource,
    *,
    names: tuple[str, ...] | None = None,
    replaceable: bool = False,
) -> None:
    """Raise `InputError` when a network's classes are not those of the data.

    `CLASS_COUNT_MISMATCH` for another number, `CLASS_ORDER_MISMATCH` when the network's own class
    `names` are the same as the data's in another order, so that every score would be wrong. The
    hint names `--new-head` where the classifier is `replaceable`.
    """
    if model_classes != len(source.classes):
        raise InputError(
            f"the model has {model_classes} outputs but the data has {len(source.classes)} classes",
            code="CLASS_COUNT_MISMATCH",
            where=str(source.path),
            hint=f"the data's classes are {some(source.classes)}; "
            + ("to train a new classifier for them on this model: --new-head; or " * replaceable)
            + "give the data that the model was made for, or a model with as many outputs",
        )
    if names is not None and names != source.classes and sorted(names) == sorted(source.classes):
        raise InputError(
            "the model and the data have the same classes in a different order",
            code="CLASS_ORDER_MISMATCH",
            where=str(source.path),
            hint=f"the model was trained with {some(names)} in this order; rename the class "
            "folders so that they sort like this",
        )


def unlike_classes(names: tuple[str, ...] | None, source: DataSource) -> tuple[str, ...]:
    """Warn where a network's own class names and the data's have none in common."""
    if names is None or set(names) & set(source.classes):
        return ()
    sentence = (
        f"the model's classes ({some(names)}) and the data's ({some(source.classes)}) have no "
        "name in common: scores mean something only if they are the same things in the same order"
    )
    return (sentence,)


def _decoder(raw: RawSplit, spec: InputSpec) -> Callable[[int], _Decoded]:
    if isinstance(raw, Arrays):
        return lambda position: _Decoded(*to_pixels(to_image(raw.images[position]), spec))

    def decode_file(position: int) -> _Decoded:
        try:
            image = read_image(BytesIO(content_of(raw, position)))
            pixels, kind = to_pixels(image, spec)
        except Exception:  # noqa: BLE001 - Pillow's plug-ins raise anything on a broken file
            return _Decoded(None)
        if not isinstance(raw, Pairs):
            return _Decoded(pixels, kind)
        return _Decoded(pixels, kind, np.asarray(read_mask(raw, position, image, spec)))

    return decode_file


def _whole(raw: RawSplit, spec: InputSpec, kept: Sequence[int]) -> Callable[[int], Tensor | None]:
    """Return what reads the images at the positions `kept` in the size that they have."""
    mode = mode_for(spec)
    least = (CROPPED * spec.width, CROPPED * spec.height)

    def read(position: int) -> Tensor | None:
        try:
            if isinstance(raw, Arrays):
                return whole_pixels(to_image(raw.images[kept[position]]), mode)
            content = BytesIO(content_of(raw, kept[position]))
            return whole_pixels(read_image(content, least=least), mode)
        except Exception:  # noqa: BLE001 - decoders raise anything on a broken file
            return None

    return read


def _decoded(
    source: DataSource,
    split: str,
    raw: RawSplit,
    decode: Callable[[int], _Decoded],
    *,
    input_spec: InputSpec,
    progress: Progress,
) -> ImageSet:
    shape = input_spec.shape
    pixels = np.empty((len(raw), *shape), dtype=np.uint8)
    masks = np.empty((len(raw), *shape[1:]), np.uint8) if isinstance(raw, Pairs) else None
    readable = np.ones(len(raw), dtype=np.bool_)
    converted: Counter[str] = Counter()

    def decode_chunk(start: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        for position in range(start, min(start + CHUNK, len(raw))):
            image = decode(position)
            readable[position] = image.pixels is not None
            if image.pixels is not None:
                pixels[position] = image.pixels
                if masks is not None and image.mask is not None:
                    masks[position] = image.mask
                seen[image.converted] += 1
        return seen

    starts = range(0, len(raw), CHUNK)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # Images that are too large are refused and counted here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for start, seen in zip(starts, pool.map(decode_chunk, starts), strict=True):
            converted += seen
            done = min(start + CHUNK, len(raw))
            progress(Step(f"read {images_of(split)}", done, len(raw)))
    names = names_of(raw)
    found = _warnings(source, split, names, readable, converted)
    whole = np.flatnonzero(readable)
    complete = len(whole) == len(raw)
    labels = labels_of(raw) if masks is None else masks
    return MemoryImageSet(
        labels=torch.from_numpy(labels[whole]),
        has_masks=masks is not None,
        classes=source.classes,
        paths=names if complete else tuple(names[index] for index in whole.tolist()),
        split=split,
        warnings=found,
        pixels=torch.from_numpy(pixels if complete else pixels[whole]),
        whole=_whole(raw, input_spec, whole.tolist()),
    )


def _streamed(
    source: DataSource,
    split: str,
    raw: RawSplit,
    decode: Callable[[int], _Decoded],
    input_spec: InputSpec,
) -> ImageSet:
    def decode_one(position: int) -> Tensor | None:
        image = decode(position)
        if image.pixels is None:
            return None
        if image.mask is None:
            return torch.from_numpy(np.array(image.pixels))
        return torch.from_numpy(np.concatenate([image.pixels, image.mask[None]]))

    return StreamedImageSet(
        labels=torch.from_numpy(labels_of(raw)),
        classes=source.classes,
        paths=names_of(raw),
        split=split,
        warnings=(*source.problems, f"the {images_of(split)} do not fit into memory: streamed"),
        decode=decode_one,
        has_masks=isinstance(raw, Pairs),
        whole=_whole(raw, input_spec, range(len(raw))),
    )


def _elsewhere(source: DataSource) -> str:
    """Return what else may be wrong with images that larger files name by their paths."""
    packed = any(isinstance(raw, Packed) for raw in source.splits.values())
    return "; if they lie elsewhere: --allow-outside" if packed and not current().outside else ""


def _warnings(
    source: DataSource,
    split: str,
    names: tuple[str, ...],
    readable: NDArray[np.bool_],
    converted: Counter[str],
) -> tuple[str, ...]:
    found = list(source.problems)
    broken = [names[index] for index in np.flatnonzero(~readable).tolist()]
    if broken and len(broken) == len(names):
        raise InputError(
            f"none of the {images_of(split, len(names))} can be read",
            code="UNREADABLE_IMAGES",
            where=str(source.path),
            hint=f"such as {some(broken)}{_elsewhere(source)}",
        )
    if broken:
        found.append(f"{images_of(split, len(broken))} cannot be read, left out: {some(broken)}")
    kinds = [f"{count} {kind}" for kind, count in sorted(converted.items()) if kind]
    if kinds:
        found.append(f"{images_of(split)} converted to the model's channels: {', '.join(kinds)}")
    return tuple(found)
