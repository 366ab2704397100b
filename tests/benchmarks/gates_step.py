"""What gates add to a step of training: processor time with them and without, in turns.

    python tests/benchmarks/gates_step.py --checkpoints DIR [--steps 12]

Random images; forward, backward and the update of SGD, and for gates what their rule does in a step
beside that. The ratio is the median over pairs of steps, one right after the other. Writes
`gates_step.csv` beside this script.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.evaluation.batches import NO_IMAGES
from prunecli.gating.bank import GateBank, add_gates_
from prunecli.gating.choose import gateable
from prunecli.gating.places import places_of
from prunecli.methods import ways  # noqa: F401 - registers all methods
from prunecli.methods.learning.rule import Moment, Rule
from prunecli.methods.learning.search import make_search
from prunecli.methods.registry import METHODS
from prunecli.methods.setup import Setup
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = Path(__file__).with_suffix(".csv")
BATCH = 128


def main() -> None:
    """Time all methods with gates on two networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [("network", "method", "seconds_plain", "seconds_gates", "ratio", "steps")]
    for name in ("resnet20-jpeg.pt", "resnet56-jpeg.pt"):
        for method in ("exact-gates", "bar", "gates"):
            plain, gated = steps_of(arguments.checkpoints / name, method)
            pairs = [(seconds(plain), seconds(gated)) for _ in range(arguments.steps)][2:]
            ratio = statistics.median(gates / without for without, gates in pairs)
            found = [statistics.median(times) for times in zip(*pairs, strict=True)]
            rows.append((name, method, *(round(value, 4) for value in (*found, ratio)), len(pairs)))
            print(*rows[-1], flush=True)
    with TABLE.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def seconds(step: Callable[[], None]) -> float:
    """Return the processor time of a step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def steps_of(path: Path, method: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a step of the traced network as it is, and one with the gates of a method."""
    model = instantiate(read(path).checkpoint)
    network = read_network(model, (torch.randn(2, 3, 32, 32),))
    every = np.ones(network.coupling.atom_count, np.bool_)
    gated, ungated = gateable(network, {})
    setup = Setup(
        network,
        make_budget(flops=0.25),
        PruneOptions(method=method),
        network.cost.dense_widths,
        ungated,
        NO_IMAGES,
    )
    search = make_search(
        setup,
        gated,
        np.random.default_rng(0).random(gated.size),
        network.cost.dense_widths // 2,
        steps=1000,
        device=torch.device("cpu"),
    )
    kind = METHODS.get(method)
    assert isinstance(kind, type)
    assert issubclass(kind, Rule)
    rule = kind(search)
    plain, _ = network.graph_network(every)
    module, _ = network.graph_network(every)
    bank = GateBank(places_of(network, gated), gated, trained=rule.trained, tested=rule.tested)
    bank.active = True
    add_gates_(module, bank)
    rule.begin(bank)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    batch = (images.to(memory_format=torch.channels_last), labels)
    return _plain_step(plain, batch), _gated_step(module, bank, rule, batch)


def _trainable(module: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = module.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    return module, optimizer


def _plain_step(module: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> Callable[[], None]:
    module, optimizer = _trainable(module)

    def step() -> None:
        loss = nn.functional.cross_entropy(module(batch[0]), batch[1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _gated_step(
    module: nn.Module, bank: GateBank, rule: Rule, batch: tuple[torch.Tensor, torch.Tensor]
) -> Callable[[], None]:
    module, optimizer = _trainable(module)
    moment = Moment(600, 1000, module, bank, torch.Generator())

    def step() -> None:
        bank.draws.uniform_()
        rule.before_step(moment)
        loss = nn.functional.cross_entropy(module(batch[0]), batch[1])
        extra = rule.extra_loss(moment)
        loss = loss if extra is None else loss + extra
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        rule.after_backward(moment, 1.0)
        optimizer.step()
        rule.after_step(moment)

    return step


if __name__ == "__main__":
    main()
