"""What one image is: its size, its kind, a digest of its content, or why it cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from prunecli.data.decode import FORMATS, MOST, to_image
from prunecli.data.source import Arrays, RawSplit, content_of
from prunecli.data.survey.near_duplicates import Thumbnails, thumbnail
from prunecli.errors import LoadRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TINY = 8
"""Pixels of its shorter side below which an image is called tiny."""

HUGE = 25_000_000
"""Pixels above which an image is called huge: decoding it costs more than training on it."""

LARGE = 512
"""Side from which JPEG images are decoded at a part of their size, enough for a thumbnail."""

DIGEST = 16
"""Bytes of a digest: images of equal digests are equal."""


@dataclass(frozen=True)
class Look:
    """One image: a digest of its content, its size, its mode, its frames, and a small picture."""

    digest: bytes
    size: tuple[int, int]
    mode: str
    frames: int
    thumbnail: Thumbnails


@dataclass(frozen=True)
class Failure:
    """Why there is nothing to see, such as `empty`, `missing`, `too large to decode`."""

    reason: str


KINDS: Mapping[str, Callable[[Look], bool]] = {
    "tiny": lambda look: min(look.size) < TINY,
    "huge": lambda look: look.size[0] * look.size[1] > HUGE,
    "animated": lambda look: look.frames > 1,
    "CMYK": lambda look: look.mode == "CMYK",
    "16-bit": lambda look: look.mode.startswith("I"),
}


def look_at(raw: RawSplit, position: int) -> Look | Failure:
    """Return what one image of a split is; what cannot be read raises nothing."""
    if isinstance(raw, Arrays):
        image = to_image(raw.images[position])
        return Look(_digest(image.tobytes()), image.size, image.mode, 1, thumbnail(image))
    try:
        content = content_of(raw, position)
    except LoadRefusedError as error:
        return Failure("too large to read" if error.code == "FILE_TOO_LARGE" else "no plain file")
    except OSError as error:
        return Failure("missing" if isinstance(error, FileNotFoundError) else "without permission")
    try:
        return _decoded(content) if content else Failure("empty")
    except Image.DecompressionBombError:
        return Failure("too large to decode")
    except Exception:  # noqa: BLE001 - Pillow's plug-ins raise anything on a broken file
        return Failure("damaged")


def _decoded(content: bytes) -> Look | Failure:
    with Image.open(BytesIO(content), formats=FORMATS) as image:
        size, mode, frames = image.size, image.mode, getattr(image, "n_frames", 1)
        if image.format == "JPEG" and min(size) >= LARGE and mode in {"L", "RGB"}:
            image.draft("L", (LARGE // 8, LARGE // 8))
        if image.width * image.height > MOST:
            return Failure("too large to decode")
        image.load()
        return Look(_digest(content), size, mode, frames, thumbnail(image))


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST).digest()
