"""Masks of segmentation: files whose values are ids of classes, 255 being what is ignored."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from prunecli.data.decode import fit, read_image
from prunecli.errors import InputError
from prunecli.files import IMAGE_SHARE, read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.architectures.reference import InputSpec
    from prunecli.data.images import ImageSet
    from prunecli.data.source import Pairs

IGNORED = 255
"""The id of pixels that are in no class: they count neither in the loss nor in scores."""

LOOKED_AT = 16
"""Masks by which it is told whether 255 means ignored, or is the only other class."""


def is_binary(pairs: Pairs) -> bool:
    """Tell whether masks hold 0 and 255 alone: then 255 is a class, as people draw them."""
    positions = np.unique(np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs))).round())
    values: set[int] = set()
    for position in positions.astype(int).tolist():
        values |= set(np.unique(_ids(pairs.masks.name(position))).tolist())
    return values <= {0, IGNORED} and IGNORED in values


def read_mask(pairs: Pairs, position: int, image: Image.Image, spec: InputSpec) -> Image.Image:
    """Return the mask of an image, brought to the size that a model takes; raises as `mask_of`."""
    mask = mask_of(pairs, position, image)
    return fit(mask, height=spec.height, width=spec.width, resample=Image.Resampling.NEAREST)


def mask_of(pairs: Pairs, position: int, image: Image.Image) -> Image.Image:
    """Return the mask of an image: uint8 ids, 255 for what is ignored.

    Raises `InputError`: `BAD_MASK` for a file that holds no ids, `MASK_SIZE` for one of another
    size than its image.
    """
    path = pairs.masks.name(position)
    ids = _ids(path)
    if ids.shape != (image.height, image.width):
        own, its = (f"{w}x{h}" for h, w in (ids.shape, (image.height, image.width)))
        raise InputError(
            f"the mask has {own} pixels, its image {its}",
            code="MASK_SIZE",
            where=path,
            hint=f"give a mask of the size of {pairs.images.name(position)}",
        )
    if pairs.binary:
        ids = (ids == IGNORED).astype(np.uint8)
    return Image.fromarray(ids)


def _ids(path: str) -> NDArray[np.uint8]:
    """Return the ids of classes in a file, [h, w]."""
    try:
        image = read_image(BytesIO(read_bytes(Path(path), share=IMAGE_SHARE)))
    except InputError:
        raise
    except Exception as error:
        raise _bad(path, f"the mask cannot be read: {error}") from error
    values = np.asarray(image)
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]  # grey, written in colours
    if values.ndim != 2:
        raise _bad(path, "the mask is a picture in colours, not of ids of classes")
    if image.format == "JPEG":
        raise _bad(path, "the mask is a JPEG, which blurs ids of classes")
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.min(initial=0) < 0 or values.max(initial=0) > IGNORED:
        raise _bad(path, f"the mask holds the id {int(values.max())}, above 255")
    return values.astype(np.uint8)


def _bad(path: str, why: str) -> InputError:
    return InputError(
        why,
        code="BAD_MASK",
        where=path,
        hint="write a PNG whose values are ids of classes from 0, and 255 for pixels to ignore",
    )


def check_ids(images: ImageSet, classes: int, names: tuple[str, ...] = ()) -> None:
    """Raise `InputError` (`CLASS_COUNT_MISMATCH`) for masks that hold ids a model has no map for.

    `names` are those of the data's classes, where they are known.
    """
    if len(names) > classes:
        raise InputError(
            f"the model has {classes} maps but the data has {len(names)} classes",
            code="CLASS_COUNT_MISMATCH",
            hint="give the data that the model was made for",
        )
    for paths, labels in images.masks():
        known = labels.where(labels != IGNORED, 0)
        worst = known.flatten(1).amax(1)
        if int(worst.max()) >= classes:
            at = int(worst.argmax())
            raise InputError(
                f"the mask of an image holds the class {int(worst[at])}; the model has {classes} "
                "maps",
                code="CLASS_COUNT_MISMATCH",
                where=paths[at],
                hint="ids count from 0, and 255 is ignored; give the data that the model was made "
                "for",
            )
