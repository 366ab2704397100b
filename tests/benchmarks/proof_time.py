"""What a cut costs with this code and with an earlier one, each network in turns.

    python tests/benchmarks/proof_time.py EARLIER [MODEL ...] [--repeat 2]

EARLIER is the folder of another version of the source. Every network is pruned to half its FLOPs on
one thread, with the one and with the other, each in a process of its own, and the least processor
seconds count: of `prunecli.prune` as a whole and of its proof. Other programs slow both down alike,
so the ratio is what holds. A row says too whether both say the same of the cut. Rows go to
`proof_time.csv` beside this script; models that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from resumed import Rows

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("torchvision:resnet50", "torchvision:densenet121", "timm:levit_128s", "timm:coat_mini",
          "timm:cait_xxs36")  # fmt: skip
RESULTS = Rows(
    Path(__file__).with_suffix(".csv"),
    ("model", "before_s", "after_s", "ratio", "prove_before_s", "prove_after_s", "mode", "scope",
     "same_verdict"),
    1,
)  # fmt: skip


def main() -> None:
    """Time the models that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("earlier", type=Path, help="folder of the other source")
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--one", action="store_true", help="only this one, with this source")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(once(arguments.models[0])))
        return
    for model in arguments.models:
        if (model,) in RESULTS.done():
            continue
        turns = [arguments.earlier, ROOT] * arguments.repeat
        runs = [timed(folder.resolve(), model) for folder in turns]
        before, after = (
            {**found[0], **{key: min(run[key] for run in found) for key in ("all", "prove")}}
            for found in (runs[::2], runs[1::2])
        )
        told = ("mode", "scope", "limits")
        RESULTS.append(
            [model, before["all"], after["all"], round(after["all"] / before["all"], 2),
             before["prove"], after["prove"], after["mode"], after["scope"],
             all(before[key] == after[key] for key in told)]
        )  # fmt: skip


def timed(folder: Path, model: str) -> dict[str, object]:
    """Prune a model with the source in a folder, in a process of its own."""
    command = [sys.executable, __file__, str(folder), model, "--one"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def once(name: str) -> dict[str, object]:
    """Prune a model here; return its processor seconds and what is said of the cut."""
    import torch
    import torch.export

    import prunecli
    import prunecli.api.pruning

    torch.set_num_threads(1)
    torch.manual_seed(0)
    package, _, model_name = name.partition(":")
    if package == "timm":
        import timm

        model = timm.create_model(model_name)
        side = model.default_cfg["input_size"][-1]
    else:
        import torchvision

        model, side = torchvision.models.get_model(model_name, weights=None), 224
    prove: list[float] = []

    def told(step: object) -> None:
        if getattr(step, "stage", "") == "prove":
            prove.append(time.process_time())

    start = time.process_time()
    result = prunecli.prune(model, torch.randn(1, 3, side, side), flops=0.5, progress=told)
    end = time.process_time()
    verified = result.report.verified
    return {
        "all": round(end - start, 2),
        "prove": round(end - prove[0], 2),
        "mode": result.report.mode,
        "scope": verified.scope,
        "limits": list(verified.limits),
    }


if __name__ == "__main__":
    main()
