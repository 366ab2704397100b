"""A large pretrained network made small for a small task, in several ways.

    python tests/benchmarks/transfer.py --checkpoint efficientnet-lite0.pth --data DATA

EfficientNet-Lite0 with its ImageNet weights is given a classifier for the classes of CIFAR-10, at
96 pixels, and trained on `--images` of them. The result is cut to a half, a quarter and an eighth
of its FLOPs: by Taylor expansion with a term for FLOPs, a few channels at a time between updates
(Molchanov et al. 2017) or at once; by the default recipe at once; and at random. All are then
trained for `--epochs` with the network before the cut as teacher. *from scratch* is the network
that the random cut leaves, with new weights, trained for as long as all the others together.
Accuracies are those of `--tested` test images. Rows are appended to `transfer.csv` beside this
script; rows that are there are not made again, and a training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from resumed import Rows

from prunecli import verbs
from prunecli.artefacts.provenance import state_of
from prunecli.budget import make_budget
from prunecli.checkpoint import save
from prunecli.options import FinetuneOptions, LoadOptions, PruneOptions, TrainingOptions
from prunecli.training import has_state
from prunecli.verbs.opened import open_model

TABLE = Path(__file__).with_suffix(".csv")
FIELDS = (
    "images", "row", "times_fewer", "epochs", "seed", "kept_flops", "before_cut", "after_cut",
    "after", "seconds",
)  # fmt: skip
READ = LoadOptions(architecture="timm/tf_efficientnet_lite0", input_size=(96, 96))
FACTORS = (2, 4, 8)
SCRATCH = "from scratch"


@dataclass(frozen=True)
class Row:
    """One way to a small network; no options: new weights for the network of the random cut."""

    name: str
    cut: PruneOptions


def rows(arguments: argparse.Namespace) -> tuple[Row, ...]:
    """Return the ways that are compared."""
    seen = min(arguments.images, 1024)
    plain = PruneOptions(seed=arguments.seed, allocation="global", limit=seen)
    between = TrainingOptions(updates=arguments.updates, batch_size=64)
    random = PruneOptions(seed=arguments.seed, signal="random", allocation="uniform")
    return (
        Row(
            "interleaved taylor-flops",
            PruneOptions(
                seed=arguments.seed, method="iterative", signal="taylor-flops", training=between,
                limit=arguments.images,
            ),
        ),
        Row("one-shot taylor-flops", dataclasses.replace(plain, signal="taylor-flops")),
        Row("one-shot default", PruneOptions(seed=arguments.seed, limit=seen)),
        Row("one-shot random", random),
        Row(SCRATCH, random),
    )  # fmt: skip


def main() -> None:
    """Make the rows that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, default=Path("transfer-work"))
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--tested", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--updates", type=int, default=10, help="between two removals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", help="only these rows")
    parser.add_argument("--factors", nargs="*", type=int, default=FACTORS)
    parser.add_argument("--out", type=Path, default=TABLE)
    arguments = parser.parse_args()
    table = Rows(arguments.out, FIELDS, 5)
    arguments.work.mkdir(parents=True, exist_ok=True)
    dense = transferred(arguments)
    before = scored(dense, arguments)
    for factor in arguments.factors:
        for row in rows(arguments):
            key = (
                str(arguments.images), row.name, str(factor), str(arguments.epochs),
                str(arguments.seed),
            )  # fmt: skip
            if key in table.done() or (arguments.rows and row.name not in arguments.rows):
                continue
            start = time.perf_counter()
            cut, kept = pruned(row, factor, dense, arguments)
            after_cut = scored(cut, arguments)
            scratch = row.name == SCRATCH
            epochs = arguments.epochs * (2 if scratch else 1)
            final = tuned(cut, None if scratch else dense, epochs, arguments)
            seconds = round(time.perf_counter() - start, 1)
            after = scored(final, arguments)
            table.append((*key, round(kept, 4), before, after_cut, after, seconds))


def transferred(arguments: argparse.Namespace) -> Path:
    """Return the pretrained network with a classifier for the classes of the data, trained once."""
    target = arguments.work / f"dense-{arguments.images}-{arguments.epochs}-{arguments.seed}.pt"
    if not target.exists():
        options = training(arguments, arguments.epochs)
        options = dataclasses.replace(options, new_head=True)
        train(arguments.checkpoint, target, options, data=arguments.data, load=READ)
    return target


def pruned(row: Row, factor: int, dense: Path, arguments: argparse.Namespace) -> tuple[Path, float]:
    """Return the network after a cut, and the share of the FLOPs that it keeps."""
    name = f"{dense.stem}-{row.name.replace(' ', '-')}-{factor}"
    target, run = arguments.work / f"{name}.pt", arguments.work / f"{name}.run"
    if not target.exists():
        goes_on = dataclasses.replace(row.cut.training, resume=has_state(run))
        verbs.prune(
            dense,
            output=target,
            budget=make_budget(flops=1 / factor),
            options=dataclasses.replace(row.cut, training=goes_on),
            data=arguments.data,
            overwrite=True,
        )
        if row.name == SCRATCH:
            forget(target, arguments.seed)
    plan = open_model(target, None).checkpoint.plan
    assert plan is not None
    return target, plan.cost_after["flops"] / plan.cost_before["flops"]


def forget(path: Path, seed: int) -> None:
    """Give a network new weights, drawn as torch draws them."""
    opened = open_model(path, None)
    torch.manual_seed(seed)
    for module in opened.model.modules():
        if callable(getattr(module, "reset_parameters", None)):
            module.reset_parameters()
    save(dataclasses.replace(opened.checkpoint, tensors=state_of(opened.model)), path)


def tuned(cut: Path, teacher: Path | None, epochs: int, arguments: argparse.Namespace) -> Path:
    """Return the network after training."""
    target = cut.with_name(f"{cut.stem}.tuned-{epochs}.pt")
    if not target.exists():
        options = training(arguments, epochs)
        train(cut, target, options, data=arguments.data, teacher=teacher)
    return target


def training(arguments: argparse.Namespace, epochs: int) -> FinetuneOptions:
    """Return how everything is trained."""
    return FinetuneOptions(
        epochs=epochs, limit=arguments.images, seed=arguments.seed, batch_size=64
    )


def train(
    model: Path,
    target: Path,
    options: FinetuneOptions,
    *,
    data: str,
    teacher: Path | None = None,
    load: LoadOptions | None = None,
) -> None:  # fmt: skip
    """Train a file, or go on where that was stopped."""
    verbs.finetune(
        model,
        data=data,
        output=target,
        teacher=teacher or Path("none"),
        options=options,
        load=load,
        resume=has_state(target.with_suffix(".run")),
        overwrite=True,
        said=(),
    )


def scored(model: Path, arguments: argparse.Namespace) -> float:
    """Return the accuracy on test images."""
    found = verbs.evaluate(model, data=arguments.data, split="test", limit=arguments.tested)
    return round(found.accuracy, 4)


if __name__ == "__main__":
    main()
