"""Time trace, coupling and allocation from ResNet-18 to the largest torchvision models.

    python tests/benchmarks/coupling_scale.py [NAME ...]

The models are built on the meta device, without weights in memory, so that every channel counts as
equally salient. Each runs in a process of its own; writes `coupling_scale.csv` beside this script.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import init_empty_weights
from torchvision.models import get_model, get_model_weights

sys.path.insert(0, str(Path(__file__).resolve().parent))
from zoo_one import memory, reset_peak

from prunecli.allocation import Problem, allocate, allowed_widths, ceilings_of
from prunecli.budget import make_budget
from prunecli.cost.alignment import default_alignment
from prunecli.cost.model import model_cost
from prunecli.graph.coupling.groups import couple
from prunecli.graph.tracing.trace import trace
from prunecli.options import PruneOptions

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "model", "parameters", "nodes", "groups", "atoms", "kept_flops", "trace_s", "couple_s",
    "cost_s", "allocate_s", "peak_gib",
)  # fmt: skip
NAMES = (
    "resnet18", "resnet50", "resnet152", "vit_b_16", "regnet_y_32gf", "vit_h_14", "regnet_y_128gf",
)  # fmt: skip


def main() -> int:
    """Measure the named models, or all; write the table."""
    rows = []
    for name in sys.argv[1:] or NAMES:
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    return 0


def measure(name: str) -> dict[str, object]:
    """Return the row of one model; CPU seconds, which other load on the machine hardly changes."""
    weights = next(iter(get_model_weights(name)))
    side = weights.transforms().crop_size[0]
    arguments = {"image_size": side} if name.startswith("vit_") else {}
    with init_empty_weights():  # a whole device context would break what constructors compute
        model = get_model(name, weights=None, **arguments).eval().to("meta")
    example = torch.zeros(1, 3, side, side, device="meta")
    reset_peak()
    base, seconds = memory("VmRSS"), []

    def timed(start: float) -> None:
        seconds.append(round(time.process_time() - start, 2))

    start = time.process_time()
    traced = trace(model, [example])
    timed(start)
    start = time.process_time()
    coupling = couple(traced)
    timed(start)
    start = time.process_time()
    cost = model_cost(traced, coupling, model)
    timed(start)
    start = time.process_time()
    kept = choose(coupling, cost)
    timed(start)
    return {
        "model": name,
        "parameters": sum(value.numel() for value in model.parameters()),
        "nodes": len(traced.graph.nodes),
        "groups": len(coupling.groups),
        "atoms": coupling.atom_count,
        "kept_flops": f"{kept:.4f}",
        **dict(zip(("trace_s", "couple_s", "cost_s", "allocate_s"), seconds, strict=True)),
        "peak_gib": f"{memory('VmHWM') - base:.2f}",
    }


def choose(coupling: object, cost: object) -> float:
    """Return the share of FLOPs that an allocation to one half keeps."""
    groups = coupling.groups
    widths = allowed_widths(groups, eligible=lambda _: True, align=default_alignment, min_width=1)
    problem = Problem(
        groups,
        np.ones(coupling.atom_count),
        cost,
        ceilings_of(make_budget(flops=0.5), cost.dense),
        widths,
    )
    chosen = allocate(PruneOptions().allocation, problem)
    return cost.cost(chosen)["flops"] / cost.dense["flops"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])))
    else:
        sys.exit(main())
