"""How long the road takes: start of the command line, and `prune` as a whole process.

    python tests/benchmarks/speed.py [--repeat 3]

Checkpoints are written to a temporary folder with random weights. Each command is run `--repeat`
times and the fastest wall time is kept; peak memory is that of the process. Writes `speed.csv`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TABLE = Path(__file__).with_suffix(".csv")
NETWORKS = ("resnet50", "vgg16_bn", "mobilenet_v3_large", "densenet121", "cifar_resnet56")
PRUNECLI = Path(sys.executable).with_name("prunecli")


def main() -> None:
    """Time everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--make", nargs=2, metavar=("NAME", "PATH"), help="only write a checkpoint")
    arguments = parser.parse_args()
    if arguments.make:
        make(*arguments.make)
        return
    repeat = arguments.repeat
    rows = []
    for words in (["--help"], ["prune", "--help"], ["--version"]):
        seconds, _, _ = best(words, repeat)
        rows.append([" ".join(words), f"{seconds:.2f}", "", "", "", ""])
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory, _ = best(["demo", "-q", "--out", f"{folder}/demo"], 1)
        rows.append(["demo", f"{seconds:.2f}", f"{memory:.2f}", "", "", ""])
        for name in NETWORKS:
            path = Path(folder) / f"{name}.pt"
            # In a process of its own: a child's peak memory starts at that of its parent.
            subprocess.run([sys.executable, __file__, "--make", name, str(path)], check=True)
            words = ["prune", str(path), "--flops", "0.5", "--json", "--overwrite",
                     "-o", str(Path(folder) / "slim.pt")]  # fmt: skip
            seconds, memory, output = best(words, repeat)
            stages = json.loads(output)["data"]["seconds"]
            cut = sum(
                stages[name] for name in ("trace", "couple", "cost", "score", "allocate", "cut")
            )
            rows.append(
                [f"prune {name} --flops 0.5", f"{seconds:.2f}", f"{memory:.2f}", f"{cut:.2f}",
                 f"{stages['couple']:.3f}", f"{stages['prove']:.2f}"]
            )  # fmt: skip
            print(rows[-1], flush=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["command", "seconds", "peak_gib", "trace_to_cut_s", "couple_s", "prove_s"])
        writer.writerows(rows)


def make(name: str, path: str) -> None:
    """Write a checkpoint of an architecture with random weights."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from prunecli.architectures.reference import ArchitectureRef
    from prunecli.architectures.registry import build_dense
    from tests.support.weights import randomize_

    model = randomize_(build_dense(ArchitectureRef(name), device="cpu"), seed=0)
    torch.save(model.state_dict(), path)


def best(words: list[str], repeat: int) -> tuple[float, float, str]:
    """Return the fastest wall time, the peak memory in GiB and the output of a command."""
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        process = subprocess.Popen(
            [PRUNECLI, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        output = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{words} ended with status {status}")
        found.append((time.perf_counter() - start, usage.ru_maxrss / 2**20, output.decode()))
    return min(found)


if __name__ == "__main__":
    main()
