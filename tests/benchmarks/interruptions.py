"""Stop every verb that writes at many moments, or take away what it needs: what is left?

After `kill -9` every output is the old one or the new one, whole, and the next run removes the
rest. After SIGINT and SIGTERM nothing is left over, and the exit code is 130 or 143. Without disk,
memory, descriptors or a home the verb ends with an error of its own and leaves the old outputs. Run
it again to go on where it stopped; the rows are in `interruptions.csv`.

    python -m tests.benchmarks.interruptions
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import tempfile
from pathlib import Path

# Imported before any fork: a child then begins with the work itself.
import onnxruntime  # noqa: F401
import torch  # noqa: F401

from tests.benchmarks.resumed import Rows
from tests.support.forked import Ended, forked, more_memory
from tests.support.writing import VERBS, broken, command, make_folder

ROWS = Rows(
    Path(__file__).with_name("interruptions.csv"),
    ("fault", "verb", "moments", "stopped", "finished", "broken", "faults"), 2,
)  # fmt: skip
MOMENTS = {signal.SIGKILL: 17, signal.SIGINT: 4, signal.SIGTERM: 4}
"""Moments for each of the six verbs: about 100 kills, and 20 of each of the others."""
CODES = {signal.SIGKILL: {-9, 0}, signal.SIGINT: {130, 0}, signal.SIGTERM: {143, 0}}

OUTPUTS = frozenset({"out.pt", "out.safetensors", "out.onnx", "out.csv", "page.html"})

SCARCE = {
    "full disk (files of 100 kB)": {resource.RLIMIT_FSIZE: 100_000},
    "full disk (files of 4 kB)": {resource.RLIMIT_FSIZE: 4_000},
    "full disk (no byte)": {resource.RLIMIT_FSIZE: 0},
    "64 descriptors": {resource.RLIMIT_NOFILE: 64},
    "50 MB of memory": {},
    "300 MB of memory": {},
    "no home": {},
    "folder that takes no files": {},
}
"""What is taken away, by its name."""


def is_fault(ended: Ended, codes: set[int]) -> bool:
    """Tell whether a verb ended in a way that is not foreseen, or said what nobody understands."""
    return ended.code not in codes or "Traceback" in ended.said or "INTERNAL_ERROR" in ended.said


def stopped(verb: str, number: signal.Signals, moments: int) -> tuple[int, ...]:
    """Stop a verb at moments spread over its run; return how it ended, and what was broken."""
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        whole = make_folder(Path(place) / "whole")
        length = forked(command(whole, VERBS[verb]), log=log).seconds
        killed = finished = torn = faults = 0
        for at in range(moments):
            folder = make_folder(Path(place) / f"{at}")
            after = length * (at + 0.5) / moments
            ended = forked(command(folder, VERBS[verb]), log=log, after=after, number=number)
            killed, finished = killed + (ended.code != 0), finished + (ended.code == 0)
            left = [] if number == signal.SIGKILL else _left_over(folder)
            torn += len(broken(folder)) + len(left)
            if is_fault(ended, CODES[number]) or left:
                faults += 1
                print(verb, number.name, f"{after:.2f} s", ended.code, left, ended.said[-2000:])
        return moments, killed, finished, torn, faults


def _left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.suffix in {".tmp", ".lock"}]


def without(verb: str, what: str) -> tuple[int, ...]:
    """Run a verb without something; return how it ended, and what was broken."""
    with tempfile.TemporaryDirectory() as place:
        folder = make_folder(Path(place) / "x")
        limits = SCARCE[what]
        if what.endswith("of memory"):
            limits = more_memory(int(what.split(maxsplit=1)[0]) * 10**6)
        words = VERBS[verb]
        if what.startswith("folder"):
            words = tuple(word if word not in OUTPUTS else f"/proc/{word}" for word in words)
        work = command(folder, words)

        def run() -> int:
            if what == "no home":
                for name in ("HOME", "XDG_CACHE_HOME", "USER", "TMPDIR"):
                    os.environ.pop(name, None)
            return work()

        Path(place).chmod(0o755)
        ended = forked(run, log=Path(place) / "log", limits=limits)
        left = _left_over(folder)
        fault = is_fault(ended, {0, 1, 2, 3, 4, 5}) or bool(left)
        if fault:
            print(verb, what, ended.code, left, ended.said[-2000:])
        done = ended.code == 0
        return 1, int(not done), int(done), len(broken(folder)) + len(left), int(fault)


def main() -> None:
    """Add the rows that are missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    done = ROWS.done()
    for verb in VERBS:
        for what in SCARCE:
            if (what, verb) not in done:
                ROWS.append([what, verb, *without(verb, what)])
        for number, moments in MOMENTS.items():
            if (number.name, verb) not in done:
                ROWS.append([number.name, verb, *stopped(verb, number, moments)])


if __name__ == "__main__":
    main()
