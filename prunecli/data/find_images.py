"""Find images of a data set again by what they are called in a report."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from prunecli.data.decode import read_image, to_image
from prunecli.data.source import Arrays, Packed, content_of, identity, names_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from PIL import Image

    from prunecli.data.source import DataSource, RawSplit


def images_named(source: DataSource, names: Collection[str]) -> Iterator[tuple[str, Image.Image]]:
    """Yield the images of `source` that go by one of `names`; none that cannot be read.

    Names are those of `names_of`, for images that are no files of their own also with the split
    before it (`train#12`); `#12` alone is that of the training images, as where all images are one
    split. Paths may be relative here and absolute there. Nothing is opened that is not an image of
    the data set, whatever the names say.
    """
    wanted: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        wanted.setdefault(identity(name), []).append(name)
    for split, raw in source.splits.items():
        for position, plain in enumerate(names_of(raw)):
            called = {identity(name) for name in _called(source, split, plain)} & wanted.keys()
            image = _decoded(raw, position) if called else None
            if image is not None:
                yield from ((name, image) for key in sorted(called) for name in wanted[key])


def _called(source: DataSource, split: str, plain: str) -> set[str]:
    if not isinstance(source.splits[split], Arrays | Packed):
        return {plain}
    trained_on = split in {"train", "all"} or len(source.splits) == 1
    return {f"{split}{plain}", plain} if trained_on else {f"{split}{plain}"}


def _decoded(raw: RawSplit, position: int) -> Image.Image | None:
    if isinstance(raw, Arrays):
        return None if raw.are_features else to_image(raw.images[position])
    try:
        return read_image(BytesIO(content_of(raw, position)))
    except Exception:  # noqa: BLE001 - Pillow's plug-ins raise anything on a broken file
        return None
