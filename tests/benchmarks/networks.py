"""Cut every network family that prunecli promises to half its FLOPs, and prove each cut.

    python tests/benchmarks/networks.py [NAME ...]

Random weights with randomised batch-norm statistics; input size as published. Writes
`networks.csv` beside this script (rows of networks that are there are replaced) and exits with 1 if
a network was not cut and proven.
"""

from __future__ import annotations

import csv
import gc
import resource
import sys
import time
from pathlib import Path

from prunecli.architectures.examples import example_arguments
from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import ARCHITECTURES, build_dense
from prunecli.budget import make_budget
from prunecli.cost.flops import count_flops
from prunecli.errors import PruneError
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.road import prune_network

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.support.weights import randomize_

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "network", "outcome", "mode", "kept_flops", "kept_params", "max_rel_error", "trace_to_cut_s",
    "prove_s", "peak_gib", "note",
)  # fmt: skip
FAMILIES = (
    "alexnet", "cifar_", "convnext", "densenet", "efficientnet", "googlenet", "inception",
    "mnasnet", "mobilenet", "regnet", "resne", "shufflenet", "squeezenet", "vgg", "wide_resnet",
    "digits_",
)  # fmt: skip
LARGE = frozenset({"regnet_y_128gf"})
"""Not run unless named: 645 M parameters do not fit beside anything else."""


def main() -> int:
    """Run the named networks, or all."""
    wanted = sys.argv[1:] or [
        name for name in ARCHITECTURES.names() if name.startswith(FAMILIES) and name not in LARGE
    ]
    table = read()
    for name in wanted:
        table[name] = {"network": name, **run(name)}
        print(table[name], flush=True)
        write(table)
        gc.collect()
    bad = [name for name in wanted if table[name]["outcome"] != "proven"]
    print(f"{len(wanted) - len(bad)} of {len(wanted)} cut and proven; not: {bad}")
    return bool(bad)


def run(name: str) -> dict[str, object]:
    """Cut one network; return its row."""
    model = randomize_(build_dense(ArchitectureRef(name), device="cpu"), seed=0).eval()
    example = example_arguments(ARCHITECTURES.get(name).input)[0]
    start = time.perf_counter()
    try:
        result = prune_network(
            read_network(model, [example]), budget=make_budget(flops=0.5), options=PruneOptions()
        )
    except PruneError as error:
        return {"outcome": error.code, "note": f"{error.message} ({error.where})"}
    report = result.report
    seconds = dict(report.seconds)
    prove = seconds.pop("prove")
    counted = count_flops(result.model, (example[:1],))
    assert counted == report.cost.after.flops, (counted, report.cost.after.flops)
    return {
        "outcome": "proven",
        "mode": report.mode,
        "kept_flops": f"{report.cost.kept['flops']:.4f}",
        "kept_params": f"{report.cost.kept['params']:.4f}",
        "max_rel_error": f"{report.verified.max_rel_error:.1e}",
        "trace_to_cut_s": f"{sum(seconds.values()):.2f}",
        "prove_s": f"{prove:.2f}",
        "peak_gib": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}",
        "note": "; ".join(report.warnings) or f"{time.perf_counter() - start:.1f} s in all",
    }


def read() -> dict[str, dict[str, object]]:
    """Return the rows of the table by network."""
    if not TABLE.exists():
        return {}
    with TABLE.open(newline="") as file:
        return {row["network"]: dict(row) for row in csv.DictReader(file)}


def write(table: dict[str, dict[str, object]]) -> None:
    """Write the table, sorted by network."""
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(table[name] for name in sorted(table))


if __name__ == "__main__":
    sys.exit(main())
