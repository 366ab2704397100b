"""The picture of a report in the README: CIFAR-10 as `analyze --report` shows it.

Needs Chromium and the images (a folder per class below train/ and test/; by default where the tests
look for them), and writes report.png beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

from prunecli import verbs
from prunecli.options import AnalyzeOptions, ComplexityOptions

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("PRUNECLI_CACHE", "~/.cache/prunecli-data")).expanduser()
WIDTH, HEIGHT = 1180, 2080
SHOWN = 900
"""Pixels of the window, and of the width of the picture that is kept."""

MARGIN = 200
"""Pixels below what is kept: the last rows of a window are not always drawn."""

COLOURS = 256


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=CACHE)
    arguments = parser.parse_args()
    sys.path.append(str(HERE.parents[1]))
    from tests.support.browser import screenshot

    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        # A link, so that the page shows a name and no place on this machine.
        Path("cifar-10").symlink_to(arguments.data.resolve())
        options = AnalyzeOptions(complexity=ComplexityOptions(embedding="pca-32", volume="none"))
        page = Path("report.html")
        verbs.analyze(data="cifar-10", options=options, page=page)
        print(f"{page.stat().st_size} bytes of page")
        shot = screenshot(page.resolve(), Path(place), width=WIDTH, height=HEIGHT + MARGIN)
        with Image.open(shot) as image:
            small = (
                image.convert("RGB")
                .crop((0, 0, WIDTH, HEIGHT))
                .resize((SHOWN, round(HEIGHT * SHOWN / WIDTH)), Image.Resampling.LANCZOS)
            )
        target = HERE / "report.png"
        small.quantize(COLOURS, kmeans=3, dither=Image.Dither.NONE).save(target, optimize=True)
        print(f"{target.stat().st_size} bytes of picture")


if __name__ == "__main__":
    main()
