"""How counts, shares, lists of names and sets of images are put into words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.report import MaskAnalysis

NAMES_SHOWN = 5

IMAGES = {
    "held_out": "images held out from training",
    "calibration": "calibration images",
    "test": "test images",
}
"""What images are called by where they are from."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    >>> counted(1, "class", "classes"), counted(2000, "file"), counted(0, "file")
    ('1 class', '2,000 files', '0 files')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def verb(count: int, singular: str, plural: str) -> str:
    """Return the form of a verb that goes with a number.

    >>> verb(1, "is", "are"), verb(2, "is", "are")
    ('is', 'are')
    """
    return singular if count == 1 else plural


def some(names: Sequence[object], shown: int = NAMES_SHOWN) -> str:
    """Return names with commas between, the first ones where they are many.

    >>> some(["cat", "dog"]), some(range(8), 2)
    ('cat, dog', '0, 1 and 6 more')
    """
    listed = ", ".join(one_line(str(name)) for name in names[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown:,} more"


_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_SEPARATORS = "\u0085\u2028\u2029\ufeff"
_STEERING = (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000))
_WRITTEN_OUT = {
    code: chr(code).encode("ascii", "backslashreplace").decode()
    if code > 0x7F
    else f"\\x{code:02x}"
    for code in (*_STEERING, *map(ord, _BIDIRECTIONAL + _SEPARATORS))
}
_KEEPING_LINES = {code: text for code, text in _WRITTEN_OUT.items() if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    r"""Return text with the characters written out that steer a terminal or turn its direction.

    Names of classes, files and layers come from data. Ends of lines stay.

    >>> printable("cat" + chr(27) + "[2J" + chr(0x202e) + "gpj")
    'cat\\x1b[2J\\u202egpj'
    """
    return text.translate(_KEEPING_LINES)


def one_line(text: str) -> str:
    r"""Return a name as `printable` does, on one line.

    >>> one_line("cat" + chr(10) + "error: none")
    'cat\\x0aerror: none'
    """
    return text.translate(_WRITTEN_OUT)


def percent(share: float | None, *, digits: int = 1) -> str:
    """Return a share in per cent; nothing for none.

    >>> percent(0.712), percent(0.5, digits=0), percent(None)
    ('71.2 %', '50 %', '')
    """
    return "" if share is None else f"{100 * share:.{digits}f} %"


def processes_text(shares: Sequence[int]) -> str:
    """Return how many processes trained together, by the images of each; nothing for one.

    >>> processes_text([647, 647]), processes_text([647, 640]), processes_text([])
    ('2 processes with 647 images each', '2 processes with 640 to 647 images', '')
    """
    if not shares:
        return ""
    least, most = min(shares), max(shares)
    each = f"{most:,} images each" if least == most else f"{least:,} to {most:,} images"
    return f"{counted(len(shares), 'process', 'processes')} with {each}"


def byte_text(count: float, *, up: bool = False) -> str:
    """Return an amount of bytes; `up` rounds it so that no less is said.

    >>> byte_text(7.04e9), byte_text(7.04e9, up=True), byte_text(512)
    ('7.0 GB', '8 GB', '512 bytes')
    """
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            amount = count / 1000**power
            return f"{math.ceil(amount)} {unit}" if up else f"{amount:,.1f} {unit}"
    return f"{count:.0f}{'B' if up else ' bytes'}"


def images_text(measured: str) -> str:
    """Return what images figures are from, by the name that reports have for them.

    >>> images_text("held_out"), images_text("validation"), images_text("")
    ('images held out from training', 'validation images', 'images')
    """
    return IMAGES.get(measured, f"{measured} images" if measured else "images")


def mask_facts(masks: MaskAnalysis) -> dict[str, str]:
    """Say how many images with masks there are, and what they are like."""
    parts = ", ".join(
        counted(count, "image") if name == "all" else f"{count} {name}"
        for name, count in masks.images.items()
    )
    sizes = ", ".join(f"{size} x{count}" for size, count in list(masks.sizes.items())[:4])
    return {
        "images": f"{parts}, each with a mask",
        "sizes": sizes or "no images",
        "classes": str(len(masks.classes)),
        "ignored": f"{percent(masks.ignored)} of the pixels (255)",
        "unreadable": str(len(masks.unreadable)),
    }
