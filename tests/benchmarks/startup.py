"""How long does it take until an error is told, and until a verb begins?

Processor seconds of whole processes, the least of some rounds; in every round the bare interpreter,
the bare import of torch, an earlier checkout and this one take turns. What a verb takes when it is
called again in one process is its `work`: all but starting. Give the earlier checkout with
`--before`. Run it again to go on where it stopped; the rows are in `startup.csv`.

    git worktree add --detach /tmp/before ecffec6
    python -m tests.benchmarks.startup --before /tmp/before
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.resumed import Rows
from tests.support.early_errors import make_folder

ROWS = Rows(
    Path(__file__).with_name("startup.csv"),
    ("case", "words", "bare", "torch", "before", "after", "work", "rounds"), 2,
)  # fmt: skip

ERRORS = {
    "missing model": "prune modle.pt --flops 0.5",
    "missing data": "evaluate model.pt --data nodata",
    "output exists": "prune model.pt --flops 0.5 -o taken.pt",
    "folder of the output is missing": "export model.pt --onnx nofolder/x.onnx",
    "unknown signal": "prune model.pt --flops 0.5 --signal tailor",
    "unknown architecture of timm": "prune model.pt --flops 0.5 --arch timm/resnet5O",
}
"""Mistakes that can be seen without torch."""

STARTS = {
    "evaluate on 1,797 digits": "evaluate model.pt --data digits -q",
    "prune a small model": "prune model.pt --flops 0.5 -q -o slim.pt --overwrite",
}
"""Verbs that do their work."""

ROUNDS = 3
PACKAGES = {
    "prunecli": "prunecli",
    "prunecli_cli": "cli",
    "prunecli_sample_models": "sample_models",
}
RUN = "from prunecli_cli.start import run; run()"
AGAIN = f"""
import sys, time
for _ in range(2):
    start = time.process_time()
    try: {RUN}
    except SystemExit: pass
print(time.process_time() - start, file=sys.stderr)
"""


def linked(checkout: Path, folder: Path) -> Path:
    """Return a folder from which the packages of a checkout are imported."""
    folder.mkdir()
    for package, place in PACKAGES.items():
        (folder / package).symlink_to(checkout.resolve() / place)
    return folder


def processor_seconds(code: str, words: list[str], *, packages: Path | None, folder: Path) -> float:
    """Return the processor time of a Python process, user and system."""
    path = {} if packages is None else {"PYTHONPATH": str(packages)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", **path},
    )  # fmt: skip
    _, _, used = os.wait4(process.pid, 0)
    return used.ru_utime + used.ru_stime


def work_seconds(words: list[str], tree: Path, folder: Path) -> float:
    """Return the processor time of a verb that is called again in one process."""
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, *words],
        cwd=folder, check=True, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)},
    )  # fmt: skip
    return float(done.stderr.splitlines()[-1])


def timed(words: list[str], trees: tuple[Path, Path], folder: Path) -> tuple[float, ...]:
    """Return the least processor seconds: bare interpreter, torch, before, after, its work."""
    contestants = (
        ("pass", [], None),
        ("import torch", [], None),
        *((RUN, words, tree) for tree in trees),
    )
    rounds = [
        [
            *(
                processor_seconds(code, arguments, packages=packages, folder=folder)
                for code, arguments, packages in contestants
            ),
            work_seconds(words, trees[1], folder),
        ]
        for _ in range(ROUNDS)
    ]
    return tuple(round(min(times), 3) for times in zip(*rounds, strict=True))


def main() -> None:
    """Add the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, metavar="CHECKOUT")
    before = parser.parse_args().before
    done = ROWS.done()
    with tempfile.TemporaryDirectory() as place:
        here = Path(__file__).parents[2]
        trees = (linked(before, Path(place) / "before"), linked(here, Path(place) / "after"))
        folder = make_folder(Path(place) / "work")
        for case, line in {**ERRORS, **STARTS}.items():
            if (case, line) not in done:
                ROWS.append([case, line, *timed(shlex.split(line), trees, folder), ROUNDS])


if __name__ == "__main__":
    main()
