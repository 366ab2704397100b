"""Time and memory of finding out what lies in a folder of many files, and of looking into it.

    python tests/benchmarks/listing.py [--files 1000000] [--folder /tmp/many] [--analyze]

Makes a folder of 1,000 classes from 1,000 small pictures, each linked once in every class (links
take no room for pictures), unless it is there, and measures in a process of its own each: `list`
(the images found, none opened), `list and split`, `list and open` (the survey of 100,000 of them
that `prunecli analyze` makes), and with `--analyze` all of that verb. Writes one row each to
`listing.csv` beside this file; the fastest of three runs, but for `--analyze`.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
CLASSES = 1000
FIELDS = ("what", "files", "seconds", "peak_mb", "cpus", "python", "date")

LIST = """
from prunecli.data import open_source
source = open_source(folder)
"""
SPLIT = """
from prunecli.data import open_source
from prunecli.data.splits import choose
source = open_source(folder)
train, held_out, test = (choose(source, name) for name in ("train", "held_out", "test"))
"""
OPEN = """
from prunecli.data import open_source
from prunecli.data.survey import survey
survey(open_source(folder), limit=100_000)
"""
ANALYZE = """
from prunecli import verbs
verbs.analyze(data=folder)
"""
IMPORT = "import prunecli.data, prunecli.complexity, prunecli.verbs"

MEASURE = """
import resource, sys, time
{imports}
folder = sys.argv[1]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
{work}
seconds = time.perf_counter() - start
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, (after - before) / 1024)
"""


def make_folder(folder: Path, files: int) -> None:
    """Fill a folder with `files` links to small pictures, as many in every class."""
    import numpy as np
    from PIL import Image

    per_class = files // CLASSES
    pictures = folder.with_name(f"{folder.name}.pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(per_class):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.jpg")
    for label in range(CLASSES):
        place = folder / f"class{label:04}"
        place.mkdir(parents=True)
        for number in range(per_class):
            os.link(pictures / f"{number}.jpg", place / f"img_{label:04}_{number:05}.jpg")


def measure(work: str, folder: Path) -> tuple[float, float]:
    """Return the seconds of some work in a fresh process, and the MB by which it grew at most."""
    program = MEASURE.format(imports=IMPORT, work=work)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    seconds, grown = done.stdout.split()
    return float(seconds), float(grown)


def main() -> None:
    """Measure, and append to the table row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/prunecli-many-files"))
    parser.add_argument("--analyze", action="store_true")
    options = parser.parse_args()
    if not options.folder.exists():
        make_folder(options.folder, options.files)
    works = {"list": (LIST, 3), "list and split": (SPLIT, 3), "list and open": (OPEN, 3)}
    if options.analyze:
        works["analyze"] = (ANALYZE, 1)
    table = HERE / "listing.csv"
    fresh = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if fresh:
            writer.writeheader()
        for what, (work, runs) in works.items():
            seconds, grown = min(measure(work, options.folder) for _ in range(runs))
            row = (what, options.files, f"{seconds:.2f}", f"{grown:.0f}", os.cpu_count())
            versions = (platform.python_version(), date.today().isoformat())  # noqa: DTZ011
            writer.writerow(dict(zip(FIELDS, (*row, *versions), strict=True)))
            file.flush()
            print(what, f"{seconds:.2f} s, {grown:.0f} MB")


if __name__ == "__main__":
    main()
