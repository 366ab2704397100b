"""Latency budgets: predicted beside real, and beside what half the FLOPs give.

    python tests/benchmarks/latency.py [NAME ...] [--seconds 45]

Random weights: speed does not depend on them. Each network's operators are measured, it is cut to
0.7 and 0.5 of its latency and to 0.5 of its FLOPs, and all four are timed in ONNX Runtime in one
interleaved run, one thread, batch 1. `real` is the ratio of the medians, with its 95 % interval;
the clock is that of the thread, which stands still while other work has the processor. Writes
`latency.csv` beside this script (rows of networks that are there are replaced).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from prunecli.architectures.examples import example_arguments
from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import ARCHITECTURES, build_dense
from prunecli.budget import make_budget
from prunecli.cost.latency import bind
from prunecli.exporting import to_onnx
from prunecli.exporting.timing import latency_table
from prunecli.exporting.timing.benchmark import ratio_interval
from prunecli.exporting.timing.engines import Contestant, Runner, Setting, find_cpu
from prunecli.network.traced import read_network
from prunecli.pruning.road import prune_network

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.support.weights import randomize_

TABLE = Path(__file__).with_suffix(".csv")
NETWORKS = ("cifar_resnet56", "mobilenet_v2", "resnet18")
BUDGETS = ({"latency": 0.7}, {"latency": 0.5}, {"flops": 0.5})
FIELDS = ("network", "budget", "kept_flops", "predicted", "real", "low", "high",
          "dense_ms", "slim_ms", "table_ms", "operators_ms", "table_s", "load")  # fmt: skip
LEAST, ROUNDS, SECONDS = 20, 200, 30.0


def main() -> None:
    """Measure the named networks, or all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=latency_table.SECONDS)
    arguments = parser.parse_args()
    for name in arguments.names:
        rows = measured(name, seconds=arguments.seconds)
        write([row for row in known() if row["network"] != name] + rows)
        for row in rows:
            print(row, flush=True)


def measured(name: str, *, seconds: float) -> list[dict[str, object]]:
    """Return a row for every budget of one network."""
    spec = ARCHITECTURES.get(name).input
    example = example_arguments(spec)[0]
    model = randomize_(build_dense(ArchitectureRef(name), device="cpu"), seed=0).eval()
    network = read_network(model, [example])
    machine = latency_table.this_machine(threads=1)
    start = time.perf_counter()
    table = latency_table.measure_table(network, input=spec, machine=machine, seconds=seconds)
    took = time.perf_counter() - start
    timed = dataclasses.replace(network, latency=bind(table, network.trace, network.coupling))
    cuts = [prune_network(timed, budget=make_budget(**budget)) for budget in BUDGETS]
    with tempfile.TemporaryDirectory() as folder:
        runners = []
        for at, each in enumerate([model, *(cut.model for cut in cuts)]):
            path = Path(folder) / f"{at}.onnx"
            to_onnx(each, path, input=spec)
            setting = Setting(spec, 1, 1, 0)
            runners.append(find_cpu(()).prepare(Contestant(path), setting))
        times = thread_times(runners)
    rows = []
    for at, (budget, cut) in enumerate(zip(BUDGETS, cuts, strict=True), start=1):
        pair = times[:, [at, 0]]
        fast, slow = ratio_interval(pair, seed=0)  # of dense over slim
        middle = np.median(pair, axis=0)
        rows.append(
            {
                "network": name,
                "budget": str(make_budget(**budget)),
                "kept_flops": f"{cut.report.cost.kept['flops']:.3f}",
                "predicted": f"{cut.report.cost.kept['latency']:.3f}",
                "real": f"{middle[0] / middle[1]:.3f}",
                "low": f"{1 / slow:.3f}",
                "high": f"{1 / fast:.3f}",
                "dense_ms": f"{1e3 * middle[1]:.3f}",
                "slim_ms": f"{1e3 * middle[0]:.3f}",
                "table_ms": f"{table.dense_ms:.3f}",
                "operators_ms": f"{table.operators_ms:.3f}",
                "table_s": f"{took:.0f}",
                "load": f"{os.getloadavg()[0]:.1f}",
            }
        )
    return rows


def thread_times(runners: list[Runner]) -> np.ndarray:
    """Return the processor seconds of this thread `[rounds, runners]`, each run in turn."""
    for runner in runners:
        runner()
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    while len(rounds) < LEAST or (len(rounds) < ROUNDS and time.perf_counter() - begin < SECONDS):
        row = []
        for runner in runners:
            start = time.thread_time()
            runner()
            row.append(time.thread_time() - start)
        rounds.append(row)
    return np.asarray(rounds)


def known() -> list[dict[str, object]]:
    """Return the rows that the table has."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def write(rows: list[dict[str, object]]) -> None:
    """Write the table."""
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: str(row["network"])))


if __name__ == "__main__":
    main()
