"""Files that ask for far more than they hold: how each is refused, how fast, in how much memory.

python -m tests.benchmarks.strangers
"""

from __future__ import annotations

import csv
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.checkpoint import load
from prunecli.data import open_source
from prunecli.errors import PruneError
from prunecli.files import limited
from tests.support.forked import forked, more_memory
from tests.support.strangers import CHECKPOINTS, DATA

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = Path(__file__).with_name("strangers.csv")
FIELDS = ("file", "bytes", "refused_with", "seconds", "more_mb")
LIMIT = 2**28
MEMORY = 600 * 2**20


def refused(read: Callable[[Path], object], path: Path) -> tuple[str, ...]:
    """Return the code of the error, the seconds and the megabytes that it took, in a child."""

    def work() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        try:
            with limited(memory=LIMIT):
                read(path)
            code = "nothing"
        except PruneError as error:
            code = error.code
        seconds = time.perf_counter() - start
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
        print(code, f"{seconds:.3f}", f"{more:.0f}", flush=True)

    with tempfile.TemporaryDirectory() as place:
        ended = forked(work, log=Path(place) / "log", limits=more_memory(MEMORY), most=60)
    found = ended.said.split()
    return tuple(found) if ended.code == 0 and len(found) == 3 else (f"fault {ended.code}", "", "")


def main() -> None:
    """Write the table anew."""
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for read, makers in (
            (load, {what: (make, "m.pt") for what, make in CHECKPOINTS.items()}),
            (open_source, DATA),
        ):
            for what, (make, name) in makers.items():
                with tempfile.TemporaryDirectory() as place:
                    path = make(Path(place) / name)
                    files = [path] if path.is_file() else list(path.iterdir())
                    size = sum(each.stat().st_blocks * 512 for each in files)
                    row = (what, size, *refused(read, path))
                writer.writerow(row)
                print(*row, flush=True)


if __name__ == "__main__":
    main()
