"""Cut many random networks and count how each ends: `python random_networks.py [N] [FIRST_SEED]`.

Every cut is proven by `prunecli.prune` itself; here its cost is compared with fvcore's count on the
cut network, and its budget is checked. Rows go to `random_networks.csv` beside this script as they
are done; seeds that are there are not run again. Exits with 1 when any network fails.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from resumed import Rows

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
RESULTS = Rows(
    Path(__file__).with_suffix(".csv"),
    ("seed", "ended", "mode", "by_structure", "scope", "limits", "cpu_s"),
    1,
)
FRACTIONS = (0.35, 0.6, 0.85)
ALIGNMENTS = (1, 2, None)


def outcome(seed: int) -> list[object]:
    """Cut the network of this seed; return how it ended, and what is proven of it."""
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
            return [SAID[error.code], "", "", "", ""]
        raise
    report = result.report
    verified, after = report.verified, report.cost.after.flops
    proof = [report.mode, verified.by_structure, verified.scope, "; ".join(verified.limits)]
    if report.cost.kept["flops"] > fraction:
        return [f"FAILED: kept {report.cost.kept['flops']:.4f} of {fraction}", *proof]
    counted = count_flops(result.model, (example,))
    if after != counted and nets.fvcore_counts_all(steps):
        return [f"FAILED: {after} FLOPs by the closed form, {counted:.0f} by fvcore", *proof]
    return [f"proven ({verified.method})", *proof]


def main() -> int:
    """Run all networks and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=300)
    parser.add_argument("first", nargs="?", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(arguments.first, arguments.first + arguments.count)
    for seed in [seed for seed in seeds if (str(seed),) not in RESULTS.done()]:
        start = time.process_time()
        try:
            ended = outcome(seed)
        except Exception as error:
            text = f"FAILED: {type(error).__name__} {getattr(error, 'code', '')} {error}"
            ended = [text.splitlines()[0][:200], "", "", "", ""]
        RESULTS.append([seed, *ended, round(time.process_time() - start, 2)])
        if str(ended[0]).startswith("FAILED"):
            print(f"    {nets.draw(seed)}", flush=True)
    with RESULTS.path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter(row["ended"].partition(":")[0] for row in rows)
    for name, number in counts.most_common():
        print(f"{number:5d}  {name}")
    return 1 if "FAILED" in counts else 0


if __name__ == "__main__":
    sys.exit(main())
