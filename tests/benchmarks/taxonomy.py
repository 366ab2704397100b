"""Which of the 396 signals of the published grid come out on top, right after the cut.

    python tests/benchmarks/taxonomy.py --data DATA CHECKPOINT [CHECKPOINT ...]

All of them, the presets and random draws are computed in one pass over training images. Each cuts
the network with the same allocation, and the loss is that of training images held out: as it is,
and with batch-norm statistics estimated anew. Test images are not looked at. Writes `taxonomy.csv`
beside this script; a run that is started again goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from cuts import Candidate, read_bench, saliencies, write_missing

from prunecli.signals import PRESETS, distinct_grid

TABLE = Path(__file__).with_suffix(".csv")
FRACTIONS = (0.7, 0.5)


def main() -> None:
    """Measure every signal on every checkpoint; rows that are there are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=256, help="training images to look at")
    parser.add_argument("--measured", type=int, default=512, help="held-out images to measure on")
    parser.add_argument("--allocation", default="greedy")
    parser.add_argument("--seeds", type=int, default=5, help="draws of the random signal")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for path in arguments.checkpoints:
        bench = read_bench(
            path,
            arguments.data,
            images=arguments.images,
            split="held_out",
            measured=arguments.measured,
        )
        write_missing(
            TABLE,
            bench,
            saliencies(bench, candidates(arguments.seeds)),
            allocation=arguments.allocation,
            fractions=FRACTIONS,
        )


def candidates(seeds: int) -> list[Candidate]:
    """Return the grid, the presets and random draws."""
    return [
        *(Candidate("grid", str(signal)) for signal in distinct_grid()),
        *(Candidate("preset", entry.name) for entry in PRESETS if entry.name != "random"),
        *(Candidate("random", "random", seed) for seed in range(seeds)),
    ]


if __name__ == "__main__":
    main()
