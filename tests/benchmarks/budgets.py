"""How near every method comes to its budget: methods x budgets x seeds, on scikit-learn's digits.

    python tests/benchmarks/budgets.py [--seeds 5]

One short run each, of the sample networks that the tests use. Rows go to `budgets.csv` beside this
script as they are done; rows that are there are not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from resumed import Rows

import prunecli_sample_models
from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.options import PruneOptions, TrainingOptions
from prunecli.options.methods import LEARNED

TABLE = Path(__file__).with_suffix(".csv")
MODELS = Path(prunecli_sample_models.__file__).parent
FIELDS = ("network", "method", "cost", "asked", "seed", "kept", "share_of_budget", "accuracy")
RESULTS = Rows(TABLE, FIELDS, 5)
ASKED = (("flops", 0.5), ("flops", 0.25), ("params", 0.4), ("activations", 0.5))


def main() -> None:
    """Run what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(arguments.seeds):
        for method in LEARNED:
            for cost, asked in ASKED:
                key = ("digits_resnet", method, cost, str(asked), str(seed))
                if key not in RESULTS.done():
                    RESULTS.append((*key, *run(method, cost, asked, seed)))


def run(method: str, cost: str, asked: float, seed: int) -> tuple[str, str, str]:
    """Prune once; return the share kept, that share over the budget, and held-out accuracy."""
    own = TrainingOptions(epochs=2, batch_size=64, amp="no")
    options = PruneOptions(method=method, limit=640, seed=seed, training=own)
    with tempfile.TemporaryDirectory() as folder:
        report = verbs.prune(
            MODELS / "digits_resnet.safetensors",
            output=Path(folder) / "slim.pt",
            budget=make_budget(**{cost: asked}),
            options=options,
            data="digits",
        )
    kept = report.cost.kept[cost]
    return f"{kept:.4f}", f"{kept / asked:.4f}", f"{report.learning.accuracy.after:.4f}"


if __name__ == "__main__":
    main()
