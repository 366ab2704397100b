"""What every command that trains gives in one process and in two, on the digits.

Both are run as one would type them, `torchrun` on the CPU, with one thread each. Batch norm sees
half of every batch in two processes, so accuracies differ as those of two seeds do.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prunecli.options.methods import ITERATIVE, LEARNED
from tests.support.samples import VGG
from tests.support.two_processes import ON_CPU, PRUNECLI, TORCHRUN

OUT = Path(__file__).with_suffix(".csv")
FIELDS = ("command", "processes", "accuracy", "loss", "flops_kept", "images_per_second")

DATA = ("--data", "digits")
HOW = (*DATA, "--amp", "no", "--batch-size", "64")
CUT = ("prune", str(VGG), "--flops", "0.5", *HOW)
COMMANDS = {
    "evaluate": ("evaluate", str(VGG), *DATA),
    "finetune": ("finetune", str(VGG), *HOW, "--epochs", "5", "--teacher", "none"),
    "one-shot": (*CUT, "--epochs", "5"),
    ITERATIVE: (*CUT, "--method", ITERATIVE),
    **{method: (*CUT, "--method", method, "--epochs", "5") for method in LEARNED},
}


def main() -> None:
    """Write one row for each command and number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="commands to run again, with commas; the others stay")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else list(COMMANDS)
    rows = []
    if OUT.exists():
        with OUT.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["command"] not in chosen]
    for name in chosen:
        for count in (1, 2):
            rows.append(measure(name, count))
            print(rows[-1], file=sys.stderr)
            write(rows)


def write(rows: list[dict[str, Any]]) -> None:
    order = list(COMMANDS)
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(
            sorted(rows, key=lambda row: (order.index(row["command"]), int(row["processes"])))
        )


def measure(name: str, count: int) -> dict[str, Any]:
    """Run one command in a folder of its own, and read what it says of itself."""
    start = PRUNECLI if count == 1 else (*TORCHRUN, "-m", "--", "prunecli")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*start, *COMMANDS[name], "--json"],
            cwd=folder,
            env=ON_CPU,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{name} in {count} processes: {done.stdout}{done.stderr}")
    report = json.loads(done.stdout)["data"]
    accuracy, loss, rate = figures(report)
    kept = report.get("cost", {}).get("kept", {}).get("flops")
    return {
        "command": name,
        "processes": count,
        "accuracy": f"{accuracy:.4f}",
        "loss": f"{loss:.6f}",
        "flops_kept": "" if kept is None else f"{kept:.4f}",
        "images_per_second": "" if rate is None else f"{rate:.0f}",
    }


def figures(report: dict[str, Any]) -> tuple[float, float, float | None]:
    """Return accuracy and loss of the result, and images per second of its last epoch."""
    trained = report.get("learning") or report.get("iterative")
    if trained is not None:
        course = [point for point in trained.get("course", ()) if point["images_per_second"]]
        rate = course[-1]["images_per_second"] if course else None
        return trained["accuracy"]["after"], trained["loss"][1], rate
    if "epochs" in report:
        best = report["epochs"][report["best_epoch"] - 1]
        return report["accuracy"]["after"], best["loss"], report["epochs"][-1]["images_per_second"]
    return report["accuracy"], report["loss"], None


if __name__ == "__main__":
    main()
