"""Beside Torch-Pruning: two networks trained here, cut by either, trained and timed alike.

    python tests/benchmarks/peer.py --data DIR [--epochs 10] [--images 0] [--networks VGG ResNet]

A small VGG with batch norm and a ResNet with projection shortcuts are trained from scratch, then
brought to half and a quarter of their FLOPs (as prunecli counts them, for either tool) and trained
for `--epochs` with the dense network as teacher, by the same recipe. Torch-Pruning 1.6.1 cuts by
the L2 norm, and by its group norm after sparse training, which takes half of the epochs; ours cuts
by the default recipe, and by `--best`, which chooses channels within the epochs: every row has seen
as many. `ms` and `ratio` are those of ONNX Runtime on one thread, in turns with the dense network.
Torch-Pruning is no dependency: `pip install --no-deps torch-pruning==1.6.1`; without it its rows
are left out. Rows go to `peer.csv` beside this script as they are done; rows that are there are not
run again, and dense networks are kept in `--work`.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import sys
import tempfile
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from bridgeout import vgg
from learning import processor
from resumed import Rows

import prunecli
from prunecli import verbs
from prunecli.architectures.reference import InputSpec
from prunecli.cost.flops import count_flops
from prunecli.data import DataSource, load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.options import BenchOptions, FinetuneOptions
from prunecli.training.finetune import finetune
from prunecli.training.method import PlainMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from prunecli.training.method import Batch, TrainingRun

INPUT = InputSpec(3, 32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EXAMPLE = torch.zeros(1, 3, 32, 32)
PEER = "torch_pruning"
STEPS = 400
"""Steps in which Torch-Pruning comes down to a hundredth: it is stopped at the budget."""


def resnet(seed: int) -> nn.Module:
    """Return a ResNet of four blocks, three of which have a projection."""
    torch.manual_seed(seed)
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"VGG": vgg, "ResNet": resnet}


@dataclass(frozen=True)
class Cell:
    """What is run: `images` are those trained on, 0 for all."""

    network: str
    method: str
    flops: float
    epochs: int
    images: int
    seed: int


@dataclass(frozen=True)
class Row(Cell):
    """What came of it: shares kept, accuracies on test images, times, and where they are from."""

    kept_flops: float
    kept_params: float
    before: float
    after: float
    ms: float
    ratio: float
    precision: str
    cpu: str


RESULTS = Rows(
    Path(__file__).with_suffix(".csv"),
    tuple(field.name for field in fields(Row)),
    len(fields(Cell)),
)


def main() -> None:
    """Run the cells that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "peer")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=sorted(NETWORKS))
    parser.add_argument("--methods", nargs="*", default=list(CUTS), choices=sorted(CUTS))
    parser.add_argument("--best", default="exact-gates", help="our method that learns")
    parser.add_argument("--flops", nargs="*", type=float, default=[0.5, 0.25])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=0, help="to train on; 0 for all")
    parser.add_argument("--test-images", type=int, default=0, help="to score on; 0 for all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for name in arguments.networks:
            for flops in arguments.flops:
                for method in arguments.methods:
                    if method in THEIRS and importlib.util.find_spec(PEER) is None:
                        print(f"{method}: Torch-Pruning is not installed", file=sys.stderr)
                        continue
                    label = arguments.best if method == LEARNED else method
                    cell = Cell(name, label, flops, arguments.epochs, arguments.images, seed)
                    if tuple(map(str, astuple(cell))) not in RESULTS.done():
                        RESULTS.append(astuple(run(cell, method, arguments)))


@dataclass(frozen=True)
class Job:
    """What a cut is made of: the dense network, what it may train on, and how."""

    dense: nn.Module
    source: DataSource
    data: str
    cell: Cell

    def training(self, epochs: int) -> FinetuneOptions:
        """Return how all of them are trained."""
        limit = self.cell.images or None
        return FinetuneOptions(epochs=epochs, limit=limit, seed=self.cell.seed, batch_size=64)

    def trained(self, model: nn.Module, epochs: int, method: Any = None) -> Any:
        """Return a trained copy, with the dense network as teacher."""
        return finetune(
            model,
            self.source,
            input=INPUT,
            options=self.training(epochs),
            teacher=self.dense,
            method=method,
        )


def run(cell: Cell, method: str, arguments: argparse.Namespace) -> Row:
    """Cut and train once, and score and time what came of it."""
    source = open_source(arguments.data)
    dense = dense_network(cell, source, arguments.work)
    test = load_split(source, "test", input=INPUT, limit=arguments.test_images or None, seed=0)
    slim, precision = CUTS[method](Job(dense, source, arguments.data, cell))
    before, after = (evaluate(model, test, input=INPUT).accuracy for model in (dense, slim))
    ms, ratio = timed(dense, slim)
    flops = count_flops(slim, (EXAMPLE,)) / count_flops(dense, (EXAMPLE,))
    params = count(slim) / count(dense)
    figures = (round(flops, 4), round(params, 4), round(before, 4), round(after, 4), ms, ratio)
    return Row(*astuple(cell), *figures, precision, processor())


def count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(value.numel() for value in model.parameters())


def dense_network(cell: Cell, source: DataSource, folder: Path) -> nn.Module:
    """Return the trained dense network; it is trained once and kept."""
    path = folder / f"{cell.network}-{cell.epochs}-{cell.images}-{cell.seed}.pt"
    model = NETWORKS[cell.network](cell.seed)
    if not path.exists():
        options = FinetuneOptions(
            epochs=cell.epochs, limit=cell.images or None, seed=cell.seed, batch_size=64, lr=0.1
        )
        trained = finetune(model, source, input=INPUT, options=options).model
        torch.save(trained.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def timed(dense: nn.Module, slim: nn.Module) -> tuple[float, float]:
    """Return milliseconds per image in ONNX Runtime on one thread, and the share of the dense."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("dense.onnx", "slim.onnx")]
        for model, path in zip((dense, slim), paths, strict=True):
            prunecli.export(model, path, input=INPUT)
        options = BenchOptions(batches=(1,), threads=1, no_memory=True)
        _, found = verbs.bench(paths, options=options).timings[0].models
    assert found.ratio is not None
    return round(found.median, 4), round(found.ratio, 4)


# --- ours ----------------------------------------------------------------------------------------


def by_default(job: Job) -> tuple[nn.Module, str]:
    """Cut by the default recipe, then train."""
    cut = prunecli.prune(
        job.dense, EXAMPLE, flops=job.cell.flops, data=job.data, input=INPUT, seed=job.cell.seed
    )
    tuned = job.trained(cut.model, job.cell.epochs)
    return tuned.model, tuned.precision


def by_learning(job: Job) -> tuple[nn.Module, str]:
    """Choose channels within the epochs."""
    found = prunecli.prune(
        job.dense, EXAMPLE, flops=job.cell.flops, data=job.data, input=INPUT, seed=job.cell.seed,
        method=job.cell.method, teacher=job.dense, epochs=job.cell.epochs, batch_size=64,
        limit=job.cell.images or None,
    )  # fmt: skip
    return found.model, found.report.learning.precision


# --- theirs --------------------------------------------------------------------------------------


def by_norm(job: Job) -> tuple[nn.Module, str]:
    """Cut by the L2 norm of groups, then train."""
    import torch_pruning as tp

    norm = tp.importance.MagnitudeImportance(p=2)
    slim = cut_by_peer(job, job.dense, tp.pruner.MagnitudePruner, norm)
    tuned = job.trained(slim, job.cell.epochs)
    return tuned.model, tuned.precision


def by_group_norm(job: Job) -> tuple[nn.Module, str]:
    """Train sparsely for half of the epochs, cut by the group norm, train for the rest."""
    import torch_pruning as tp

    importance = tp.importance.GroupMagnitudeImportance(p=2)
    first = max(job.cell.epochs // 2, 1)
    sparse = job.trained(job.dense, first, _Sparse(tp.pruner.GroupNormPruner, importance))
    slim = cut_by_peer(job, sparse.model, tp.pruner.GroupNormPruner, importance)
    tuned = job.trained(slim, max(job.cell.epochs - first, 1))
    return tuned.model, tuned.precision


class _Sparse(PlainMethod):
    """Adds the peer's regulariser to the gradients of every step."""

    def __init__(self, kind: Any, importance: Any) -> None:
        self.kind, self.importance = kind, importance
        self.pruner: Any = None

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:  # noqa: ARG002
        """Let the pruner add to the gradients."""
        if self.pruner is None:
            self.pruner = peer_pruner(run.bare, self.kind, self.importance)
            self.pruner.update_regularizer()
        self.pruner.regularize(run.bare)

    def settled(self, run: TrainingRun) -> bool:
        """Tell that the last epoch is the one that counts: small weights are what is wanted."""
        return run.taken + 1 >= run.recipe.steps


def peer_pruner(model: nn.Module, kind: Any, importance: Any) -> Any:
    """Return a pruner of theirs, over all layers but the last."""
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    return kind(
        model, EXAMPLE, importance=importance, iterative_steps=STEPS, pruning_ratio=0.99,
        global_pruning=True, ignored_layers=[last],
    )  # fmt: skip


def cut_by_peer(job: Job, model: nn.Module, kind: Any, importance: Any) -> nn.Module:
    """Return a copy that their pruner cut step by step until it keeps the FLOPs."""
    slim = copy.deepcopy(model).eval().cpu()
    pruner = peer_pruner(slim, kind, importance)
    ceiling = job.cell.flops * count_flops(job.dense, (EXAMPLE,))
    for _ in range(STEPS):
        if count_flops(slim, (EXAMPLE,)) <= ceiling:
            break
        pruner.step()
    return slim


LEARNED = "learned"
THEIRS = {"torch-pruning l2": by_norm, "torch-pruning group norm": by_group_norm}
CUTS: dict[str, Callable[[Job], tuple[nn.Module, str]]] = {
    "default": by_default,
    LEARNED: by_learning,
    **THEIRS,
}


if __name__ == "__main__":
    main()
