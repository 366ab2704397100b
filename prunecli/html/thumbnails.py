"""Small images inside a page."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from prunecli.data.decode import in_mode
from prunecli.data.find_images import images_named
from prunecli.data.survey.survey import GREY_MODES
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Collection

    from prunecli.data import DataSource

SIDE = 128
"""Pixels of the longer side of what is shown; larger images are shrunk to it."""

EXACT = 48
"""Images whose longer side is this at most keep every pixel, as PNG."""

QUALITY = 82


def data_uri(image: Image.Image) -> str:
    """Return an image as a data URI; the same bytes for the same image.

    Nothing but the pixels goes along: no position, no camera, no comment.
    """
    small = in_mode(image, "L" if image.mode in GREY_MODES else "RGB").copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    plain = Image.new(small.mode, small.size)
    plain.paste(small)
    kind = "png" if max(plain.size) <= EXACT else "jpeg"
    with BytesIO() as buffer:
        plain.save(buffer, kind, optimize=True, quality=QUALITY)
        return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"


def thumbnails(
    source: DataSource, names: Collection[str], *, progress: Progress = silent
) -> dict[str, str]:
    """Return the data URIs of those images of a data set that go by one of `names`."""
    found: dict[str, str] = {}
    for name, image in images_named(source, names):
        found[name] = data_uri(image)
        progress(Step("read images for the report", len(found)))
    return found
