"""Cut one model of a zoo with Torch-Pruning, without hints: `python zoo_peer.py SOURCE NAME`.

Half of the channels of every layer by magnitude, only the layers that make the output left out; a
row as JSON. Torch-Pruning is no dependency of prunecli: `pip install --no-deps torch-pruning`.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from zoo_models import DETECTION, ENTRIES, Entry, raw_outputs
from zoo_one import last_lines

from prunecli.cost.flops import count_flops
from prunecli.graph.tracing.record import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

try:
    import torch_pruning
except ImportError:
    sys.exit("install it first: pip install --no-deps torch-pruning==1.6.1")

Row = dict[str, object]
RATIO = 0.5


def main() -> int:
    """Run the model that the command line names."""
    source, name = sys.argv[1:3]
    entry = next(entry for entry in ENTRIES[source]() if entry.name == name)
    row: Row = {}
    try:
        model = entry.build()
        forward = raw_outputs if entry.kind == DETECTION else _call
        example = entry.example()
        slim = copy.deepcopy(model)
        heads = output_layers(slim, forward, example)
    except Exception as error:
        row["outcome"] = f"{type(error).__name__} in the benchmark"
        row["note"] = f"{error} ({last_lines(error)})"[:400]
        print(json.dumps(row), flush=True)
        return 0
    row["outcome"] = "killed while pruning"
    print(json.dumps(row), flush=True)
    start = time.perf_counter()
    row = attempt(entry, model, slim, heads, forward)
    row["seconds"] = f"{time.perf_counter() - start:.1f}"
    print(json.dumps(row), flush=True)
    return 0


def _call(model: nn.Module, example: list[Tensor]) -> object:
    return model(*example)


def output_layers(
    model: nn.Module, forward: Callable[..., object], example: list[Tensor]
) -> list[nn.Module]:
    """Return the layers whose output is an output of the network: found by identity of storage."""
    made: list[tuple[nn.Module, int]] = []

    def remember(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            made.append((module, output.data_ptr()))
            kept.append(output)

    kept: list[Tensor] = []
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    hooks = [module.register_forward_hook(remember) for module in layers]
    with torch.no_grad():
        outputs = tensors_in(forward(model, example))
    for hook in hooks:
        hook.remove()
    ends = {value.data_ptr() for value in outputs}
    heads = [module for module, address in made if address in ends]
    return heads or [made[-1][0]]


def attempt(
    entry: Entry,
    model: nn.Module,
    slim: nn.Module,
    heads: list[nn.Module],
    forward: Callable[..., object],
) -> Row:
    """Prune and run; return how it ended."""
    example = entry.example()
    before = sum(value.numel() for value in slim.parameters())
    try:
        pruner = torch_pruning.pruner.BasePruner(
            slim,
            example[0] if len(example) == 1 else tuple(example),
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=RATIO,
            ignored_layers=heads,
        )
        pruner.step()
    except Exception as error:
        return {
            "outcome": f"{type(error).__name__}",
            "note": f"{error} ({last_lines(error)})"[:300],
        }
    if sum(value.numel() for value in slim.parameters()) == before:
        return {"outcome": "nothing pruned"}
    try:
        with torch.no_grad():
            shapes = [value.shape for value in tensors_in(forward(model, example))]
            found = [value.shape for value in tensors_in(forward(slim.eval(), example))]
    except Exception as error:
        note = f"forward fails: {error} ({last_lines(error)})"[:300]
        return {"outcome": "broken model, no error", "note": note}
    if found != shapes:
        return {"outcome": "wrong output shape", "note": f"{found[0]} for {shapes[0]}"}
    try:
        kept = count_flops(slim, tuple(example)) / count_flops(model, tuple(example))
    except Exception as error:
        return {"outcome": "runs", "note": f"FLOPs not counted: {error}"[:200]}
    return {"outcome": "runs", "kept_flops": f"{kept:.4f}"}


if __name__ == "__main__":
    sys.exit(main())
