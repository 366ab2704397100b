"""Damage every format of file in thousands of ways, under a memory limit: what comes of it?

Every file is read as a command reads it. It may be read (damage that changes nothing, or a change
that makes sense), or refused with one of prunecli's errors; anything else is a fault: another
exception, a crash, 20 seconds without an answer, memory beyond 1 GB. Run it again to add to
`mutations.csv` until there are `--count` of each.

    python -m tests.benchmarks.mutations --count 5000
"""

from __future__ import annotations

import argparse
import csv
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunecli.errors import PruneError
from tests.support.forked import forked, more_memory
from tests.support.mutations import FORMATS, mutated

if TYPE_CHECKING:
    from tests.support.mutations import Format

TABLE = Path(__file__).with_name("mutations.csv")
FIELDS = ("format", "mutations", "read", "refused", "faults", "slowest_s")
MEMORY = 10**9
PATIENCE = 20
BATCH = 250


def outcome(form: Format, path: Path, content: bytes, seed: int) -> str:
    """Return what reading one mutation comes to: `read`, `refused`, or the fault."""
    path.write_bytes(mutated(content, seed))
    signal.alarm(PATIENCE)
    try:
        form.read(path)
    except PruneError as error:
        return "refused" if error.code != "INTERNAL_ERROR" else "fault INTERNAL_ERROR"
    except BaseException as error:
        traceback.print_exc()
        return f"fault {type(error).__name__}"
    finally:
        signal.alarm(0)
    return "read"


def run(name: str, first: int, count: int) -> tuple[Counter[str], float]:
    """Return the outcomes of some mutations of a format, and the slowest of them in seconds."""
    form, counts, slowest = FORMATS[name], Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "files"
        folder.mkdir()
        path = form.make(folder)
        content = path.read_bytes()
        form.read(path)  # what is honest is read
        results, log = Path(place) / "results", Path(place) / "log"
        seed, end = first, first + count
        while seed < end:
            begun = seed

            def work(begun: int = begun) -> None:
                torch.set_num_threads(1)
                signal.signal(signal.SIGALRM, signal.default_int_handler)
                with results.open("w", buffering=1) as out:
                    for at in range(begun, min(begun + BATCH, end)):
                        start = time.monotonic()
                        found = outcome(form, path, content, at)
                        out.write(f"{found}\t{time.monotonic() - start:.3f}\n")

            ended = forked(work, log=log, limits=more_memory(MEMORY), most=PATIENCE * BATCH)
            lines = [line.split("\t") for line in results.read_text().splitlines()]
            for found, seconds in lines:
                counts[found.partition(" ")[0]] += 1
                slowest = max(slowest, float(seconds))
            seed = begun + len(lines)
            if ended.code != 0:
                counts["fault"] += 1
                print(f"{name}, mutation {seed}: ended with {ended.code}", file=sys.stderr)
                seed += 1
            if counts["fault"]:
                print(ended.said[-3000:], file=sys.stderr)
    return counts, slowest


def known() -> dict[str, list[str]]:
    """Return the rows so far by format."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {row["format"]: [row[field] for field in FIELDS] for row in csv.DictReader(file)}


def main() -> None:
    """Add to the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--step", type=int, default=500)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows = known()
    for target in range(options.step, options.count + options.step, options.step):
        for name in (name for name in FORMATS if options.only in name):
            _, done, read, refused, faults, slowest = rows.get(name, [name, 0, 0, 0, 0, 0])
            wanted = min(target, options.count) - int(done)
            if wanted <= 0:
                continue
            counts, longest = run(name, int(done), wanted)
            rows[name] = [
                name, str(int(done) + wanted), str(int(read) + counts["read"]),
                str(int(refused) + counts["refused"]), str(int(faults) + counts["fault"]),
                f"{max(float(slowest), longest):.2f}",
            ]  # fmt: skip
            print(*rows[name], flush=True)
            with TABLE.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(FIELDS)
                writer.writerows(rows[name] for name in FORMATS if name in rows)


if __name__ == "__main__":
    main()
