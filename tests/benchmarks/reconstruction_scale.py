"""How far reconstruction, greedy and least squares scale: seconds and memory on large networks.

    python tests/benchmarks/reconstruction_scale.py --data DATA [NAME ...]

Networks of torchvision with random weights and random statistics of batch norm, cut to half of the
FLOPs: scored, chosen and refitted on `--images` training images of DATA, enlarged to 224 pixels.
Every network runs in a process of its own, so the peak of memory is that of this `prune` alone, its
images included. Loss and accuracy are measured on 64 images; nobody asks for them here. `cpu` are
seconds of the processor: they say what the clock says on a machine with nothing else to do, times
`threads`; `load` is the average load in the minute before. Writes `reconstruction_scale.csv`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torchvision

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from resumed import Rows

from prunecli.architectures.reference import InputSpec
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.evaluation.batches import Images, first_images
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.progress import Clock, silent
from prunecli.pruning.road import prune_network
from prunecli.verbs.images import normalised
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = Path(__file__).with_suffix(".csv")
NETWORKS = ("resnet18", "resnet50", "mobilenet_v2")
SPEC = InputSpec(3, 224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STAGES = ("score", "allocate", "repair")
FIELDS = (
    "network", "images", "score", "allocate", "repair", "seconds", "cpu", "peak_gb", "kept_flops",
    "lstsq_layers", "threads", "load",
)  # fmt: skip
RESULTS = Rows(TABLE, FIELDS, 2)
MEASURED = 64


def main() -> None:
    """Measure the networks that the table lacks, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--one", action="store_true", help="measure one, and print it as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.names[0], arguments.data, arguments.images)))
        return
    for name in arguments.names:
        if (name, str(arguments.images)) in RESULTS.done():
            continue
        words = [__file__, name, "--one", "--data", arguments.data]
        words += ["--images", str(arguments.images)]
        found = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE)
        RESULTS.append(json.loads(found.stdout.splitlines()[-1]))


@dataclass
class BothClocks(Clock):
    """Times every stage by the clock on the wall, and by that of the processor."""

    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        start = time.process_time()
        with super().stage(name):
            yield
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - start


def measure(name: str, data: str, count: int) -> dict[str, object]:
    """Return the row of one network."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    load = os.getloadavg()[0]
    train = load_split(open_source(data), "train", input=SPEC, limit=count)
    model = randomize_(torchvision.models.get_model(name, weights=None), seed=0).eval()
    clock = BothClocks(silent)

    def images() -> Iterator:
        return normalised(train, SPEC)

    result = prune_network(
        read_network(model, [torch.zeros(1, *SPEC.shape)]),
        budget=make_budget(flops=0.5),
        options=PruneOptions(signal="reconstruction", allocation="greedy", repair=("lstsq",)),
        images=Images(images, lambda: first_images(images, MEASURED)),
        clock=clock,
    )
    cost, steps = result.report.cost, result.report.repair.steps
    return {
        "network": name,
        "images": len(train),
        **{stage: f"{clock.seconds[stage]:.1f}" for stage in STAGES},
        "seconds": f"{sum(clock.seconds[stage] for stage in STAGES):.1f}",
        "cpu": f"{sum(clock.cpu[stage] for stage in STAGES):.1f}",
        "peak_gb": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.2f}",
        "kept_flops": f"{cost.after.flops / cost.before.flops:.3f}",
        "lstsq_layers": steps[-1].layers,
        "threads": torch.get_num_threads(),
        "load": f"{load:.1f}",
        "cpu_by_stage": {key: round(value, 1) for key, value in clock.cpu.items()},
        "warnings": list(result.report.warnings),
        "skipped": dict(steps[-1].skipped),
    }


if __name__ == "__main__":
    main()
