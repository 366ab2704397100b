"""What the proof of structure says of both model zoos, and what it costs.

    python tests/benchmarks/structure.py [--limit SECONDS]

Every network of `zoo.csv` is pruned to half its FLOPs, the quickest first. A row says in which mode
(and in which before, without the proof of structure), for which inputs it is verified, which
conditions are not covered, and CPU seconds: of everything, and of proving. Rows go to
`structure.csv` beside this script as they are done; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from resumed import Rows
from zoo_models import ENTRIES

import prunecli
from prunecli.errors import PruneError

if TYPE_CHECKING:
    from prunecli.progress import Step

FOLDER = Path(__file__).resolve().parent
RESULTS = Rows(
    Path(__file__).with_suffix(".csv"),
    (
        "source",
        "model",
        "outcome",
        "mode_before",
        "mode",
        "by_structure",
        "scope",
        "limits",
        "method",
        "max_rel_error",
        "cpu_s",
        "prove_s",
    ),
    2,
)


def main() -> None:
    """Run the networks that the table lacks, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "MODEL"), help="only this one")
    parser.add_argument("--limit", type=int, default=900, help="seconds for one network")
    arguments = parser.parse_args()
    if arguments.one:
        run(*arguments.one)
        return
    with (FOLDER / "zoo.csv").open(newline="") as file:
        known = sorted(csv.DictReader(file), key=lambda row: float(row["prove_s"] or 0))
    for row in known:
        key = (row["source"], row["model"])
        if key in RESULTS.done():
            continue
        command = [sys.executable, __file__, "--one", *key]
        try:
            subprocess.run(command, check=True, timeout=arguments.limit)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            outcome = type(error).__name__
            RESULTS.append([*key, outcome, row["mode"], *[""] * (len(RESULTS.fields) - 4)])


def run(source: str, name: str) -> None:
    """Prune one network and add its row."""
    torch.set_num_threads(1)
    entry = next(entry for entry in ENTRIES[source]() if entry.name == name)
    with (FOLDER / "zoo.csv").open(newline="") as file:
        before = next(row["mode"] for row in csv.DictReader(file) if row["model"] == name)
    model, example = entry.build(), entry.example()
    clock = CpuSeconds()
    try:
        result = prunecli.prune(model, example, flops=0.5, signal="l2", progress=clock)
    except PruneError as error:
        RESULTS.append([source, name, error.code, before, *[""] * 6, *clock.row()])
        return
    verified = result.report.verified
    RESULTS.append(
        [
            source,
            name,
            "proven",
            before,
            result.report.mode,
            verified.by_structure,
            verified.scope,
            "; ".join(verified.limits),
            verified.method,
            f"{verified.max_rel_error:.1e}",
            *clock.row(),
        ]
    )


class CpuSeconds:
    """Progress that counts the processor seconds of proving, the last stage that is told."""

    def __init__(self) -> None:
        self.start = time.process_time()
        self.proves: float | None = None

    def __call__(self, step: Step) -> None:
        if step.stage == "prove" and self.proves is None:
            self.proves = time.process_time()

    def row(self) -> list[float]:
        """Return the seconds so far: of everything, and since the proof began."""
        now = time.process_time()
        return [round(now - self.start, 1), round(now - (self.proves or now), 1)]


if __name__ == "__main__":
    main()
