"""Cut many random networks and count how each ends: `python random_networks.py [N] [FIRST_SEED]`.

Every cut is proven by `prunecli.prune` itself; here its cost is compared with fvcore's count on the
cut network, and its budget is checked. Exits with 1 when any network fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import prunecli
from prunecli.cost.flops import count_flops
from prunecli.errors import PruneError
from tests.support import random_networks as nets

SAID = {
    "INFEASIBLE_BUDGET": "infeasible",
    "NOTHING_TO_CUT": "nothing to cut",
    "EMPTY_PROOF": "the output no longer depends on the input",
}
FRACTIONS = (0.35, 0.6, 0.85)
ALIGNMENTS = (1, 2, None)


def outcome(seed: int) -> str:
    """Cut the network of this seed; return how it ended."""
    steps, head = nets.draw(seed)
    model = nets.network(steps, head=head, seed=seed)
    example = torch.zeros(1, 3, nets.SIDE, nets.SIDE)
    fraction, align = FRACTIONS[seed % 3], ALIGNMENTS[seed // 3 % 3]
    try:
        result = prunecli.prune(
            model, example, flops=fraction, signal="random", seed=seed, align=align
        )
    except PruneError as error:
        if error.code in SAID:
            return SAID[error.code]
        raise
    after = result.report.cost.after.flops
    if result.report.cost.kept["flops"] > fraction:
        return f"FAILED: kept {result.report.cost.kept['flops']:.4f} of {fraction}"
    counted = count_flops(result.model, (example,))
    if after != counted and nets.fvcore_counts_all(steps):
        return f"FAILED: {after} FLOPs by the closed form, {counted:.0f} by fvcore"
    return f"proven in {result.report.mode} mode ({result.report.verified.method})"


def main() -> int:
    """Run all networks and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=300)
    parser.add_argument("first", nargs="?", type=int, default=0)
    arguments = parser.parse_args()
    start, counts, failures = time.perf_counter(), Counter(), 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            ended = outcome(seed)
        except Exception as error:
            ended = f"FAILED: {type(error).__name__} {getattr(error, 'code', '')} {error}"
        if ended.startswith("FAILED"):
            failures += 1
            print(f"seed {seed}: {ended.splitlines()[0][:200]}\n    {nets.draw(seed)}", flush=True)
            ended = "FAILED"
        counts[ended] += 1
    for name, number in counts.most_common():
        print(f"{number:5d}  {name}")
    print(f"{arguments.count} networks in {time.perf_counter() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
