"""What deleting residual blocks adds to a cut by channels alone, at the same budget.

    python tests/benchmarks/block_deletion.py --data DATA CHECKPOINT [--flops 0.25 0.125]

Every row is one cut with `--signal reconstruction --repair lstsq` and one short fine-tuning on a
limited number of training images with the dense network as teacher. `cut` is the accuracy right
after cut and repair on images held out from training (which decided about the blocks, where any
could go), `before` and `after` are those on test images before and after the fine-tuning. `seconds`
are those of the whole cut, with `load` as the average load of the machine in the minute before.
Rows are appended to `block_deletion.csv` beside this script; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from resumed import Rows

from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import FinetuneOptions, PruneOptions

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "checkpoint", "flops", "allocation", "blocks", "images", "epochs", "limit", "seed", "deleted",
    "kept_flops", "kept_params", "cut", "before", "after", "trials", "seconds", "load",
)  # fmt: skip
RESULTS = Rows(TABLE, FIELDS, 8)


def main() -> None:
    """Run the rows that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--flops", nargs="*", default=["0.25", "0.125"])
    parser.add_argument("--allocations", nargs="*", default=["greedy"])
    parser.add_argument("--images", type=int, default=1024, help="images of signal and repair")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=6000, help="images to fine-tune on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    for flops in arguments.flops:
        for allocation in arguments.allocations:
            for delete in (True, False):
                key = {
                    "checkpoint": arguments.checkpoint.name,
                    "flops": flops,
                    "allocation": allocation,
                    "blocks": "deleted" if delete else "kept",
                    "images": str(arguments.images),
                    "epochs": str(arguments.epochs),
                    "limit": str(arguments.limit),
                    "seed": str(arguments.seed),
                }
                if tuple(key.values()) not in RESULTS.done():
                    RESULTS.append({**key, **run(key, arguments)})


def run(key: dict[str, str], arguments: argparse.Namespace) -> dict[str, str]:
    """Cut and train once; return what came of it."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cut = verbs.prune(
            arguments.checkpoint,
            output=Path(folder) / "slim.pt",
            budget=make_budget(flops=key["flops"]),
            options=PruneOptions(
                signal="reconstruction",
                allocation=key["allocation"],
                repair=("lstsq",),
                limit=arguments.images,
                delete_blocks=key["blocks"] == "deleted",
                seed=arguments.seed,
            ),
            data=arguments.data,
        )
        seconds = time.perf_counter() - start
        tuned = verbs.finetune(
            cut.output,
            data=arguments.data,
            output=Path(folder) / "tuned.pt",
            teacher=arguments.checkpoint,
            options=FinetuneOptions(
                epochs=arguments.epochs, limit=arguments.limit, seed=arguments.seed
            ),
        )
    blocks = cut.blocks
    return {
        "deleted": "" if blocks is None else " ".join(block.name for block in blocks.deleted),
        "kept_flops": f"{cut.cost.kept['flops']:.4f}",
        "kept_params": f"{cut.cost.kept['params']:.4f}",
        "cut": f"{cut.repair.steps[-1].accuracy:.4f}",
        "before": f"{tuned.accuracy.before:.4f}",
        "after": f"{tuned.accuracy.after:.4f}",
        "trials": "0" if blocks is None else str(len(blocks.trials)),
        "seconds": f"{seconds:.0f}",
        "load": f"{load:.1f}",
    }


if __name__ == "__main__":
    main()
