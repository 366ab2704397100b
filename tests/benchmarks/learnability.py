"""How much three small networks of different families agree on which images are hard.

    python tests/benchmarks/learnability.py --data DATA --work DIR

Every network is trained from random weights, with two seeds, on the same 10,000 training images of
CIFAR-10; what it has right is recorded by the library in a pass of its own after each epoch. Runs
are written to `learnability_runs.csv` beside this script, pairs of runs to `learnability.csv`. A
run that was stopped is gone on with; one whose record lies in DIR is not done again.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from prunecli import verbs
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import build_dense
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import state_of
from prunecli.checkpoint import Checkpoint, save
from prunecli.data import open_source
from prunecli.data.splits import even_sample
from prunecli.learnability import compare_records
from prunecli.options import FinetuneOptions, LoadOptions
from prunecli.training import has_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.data import DataSource, Sample

RUNS = Path(__file__).with_name("learnability_runs.csv")
PAIRS = Path(__file__).with_suffix(".csv")
RUN_FIELDS = (
    "network", "seed", "epochs", "images", "parameters", "test_accuracy", "learnability", "never",
    "always", "forgetting", "scored",
)  # fmt: skip
PAIR_FIELDS = (
    "first", "second", "same_family", "images", "pearson", "spearman", "overlap", "always_right",
    "pearson_wrong", "spearman_wrong",
)  # fmt: skip
INPUT = InputSpec(3, 32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NETWORKS = {
    "ResNet-20": ArchitectureRef("cifar_resnet20", {"num_classes": 10}),
    "VGG": ArchitectureRef("learnability_networks:small_vgg", {"num_classes": 10}),
    "MobileNet": ArchitectureRef("learnability_networks:small_mobilenet", {"num_classes": 10}),
}
TRAINED, HELD_OUT, TESTED = 10_000, 1_000, 5_000
EPOCHS = 10


@dataclass(frozen=True)
class Run:
    """A network and the seed of its first weights and of the order of its images."""

    network: str
    seed: int

    @property
    def name(self) -> str:
        """Name the files of the run."""
        return f"{self.network}-{self.seed}"


def main() -> None:
    """Do the runs that are missing, then write both tables anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    images = write_list(open_source(arguments.data), arguments.work / "images.csv")
    runs = [Run(network, seed) for seed in (0, 1) for network in NETWORKS]
    runs.append(runs.pop(len(NETWORKS)))  # the slowest again comes last
    for at, run in enumerate(runs):
        if not record_of(run, arguments.work).exists():
            train(run, images, arguments.work, epochs=arguments.epochs)
        write_tables(runs[: at + 1], arguments.work)


def record_of(run: Run, work: Path) -> Path:
    """Return where the record of a run is."""
    return work / f"{run.name}.parquet"


def write_list(source: DataSource, path: Path) -> Path:
    """Write the images of all runs as a table with splits, so that no seed changes them."""
    train = source.splits["train"]
    chosen = even_sample(_labels(train), TRAINED + HELD_OUT, seed=0)
    ordered = np.random.default_rng(0).permutation(chosen)
    held = set(even_sample(_labels([train[at] for at in ordered]), HELD_OUT, seed=1).tolist())
    test = source.splits["test"]
    tested = even_sample(_labels(test), TESTED, seed=0)
    rows = [
        *((train[place], "val" if at in held else "train") for at, place in enumerate(ordered)),
        *((test[place], "test") for place in tested),
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows(
            (sample.path.resolve(), source.classes[sample.label], split) for sample, split in rows
        )
    return path


def _labels(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([sample.label for sample in samples])


def untrained(
    reference: ArchitectureRef, path: Path, *, seed: int, spec: InputSpec = INPUT
) -> Path:
    """Write a network with random weights."""
    torch.manual_seed(seed)
    network = instantiate(
        Checkpoint(reference, state_of(build_dense(reference, device="cpu")), spec)
    )
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    save(Checkpoint(reference, state_of(network), spec), path)
    return path


def train(run: Run, images: Path, work: Path, *, epochs: int) -> None:
    """Train from random weights, recording; the test accuracy lies in a file beside the record."""
    print(run.name, flush=True)
    output = work / f"{run.name}.pt"
    start = work / f"{run.name}.start.pt"
    resume = has_state(output.with_suffix(".run")) and start.exists()
    if not resume:
        untrained(NETWORKS[run.network], start, seed=run.seed)
    report = verbs.finetune(
        start,
        data=str(images),
        output=output,
        record=record_of(run, work),
        options=FinetuneOptions(epochs=epochs, seed=run.seed),
        load=trusted(NETWORKS[run.network]),
        resume=resume,
        overwrite=not resume,
    )
    print(f"  {report.accuracy.after:.4f} in {report.seconds:.0f} s", flush=True)
    (work / f"{run.name}.accuracy").write_text(f"{report.accuracy.after:.4f}")


def trusted(reference: ArchitectureRef) -> LoadOptions:
    """Say that the code which makes a network may be called; without that, ours alone is."""
    return LoadOptions(architecture=reference.name, architecture_args=reference.kwargs)


def write_tables(runs: Sequence[Run], work: Path) -> None:
    """Write what is recorded so far."""
    report = compare_records([record_of(run, work) for run in runs])
    rows = []
    for run, found in zip(runs, report.runs, strict=True):
        parameters = sum(
            tensor.numel()
            for tensor in build_dense(NETWORKS[run.network], device="meta").parameters()
        )
        rows.append(
            {
                "network": run.network,
                "seed": run.seed,
                "parameters": parameters,
                "test_accuracy": (work / f"{run.name}.accuracy").read_text(),
                "learnability": f"{found.learnability:.4f}",
                "forgetting": f"{found.forgetting:.4f}",
                **{name: getattr(found, name)
                   for name in ("epochs", "images", "never", "always", "scored")},
            }
        )  # fmt: skip
    _write(RUNS, RUN_FIELDS, rows)
    pairs = zip(itertools.combinations(runs, 2), report.pairs, strict=True)
    _write(PAIRS, PAIR_FIELDS, [
        {
            **{name: f"{value:.4f}" if isinstance(value, float) else value
               for name, value in dataclasses.asdict(found).items()},
            "first": first.name,
            "second": second.name,
            "same_family": int(first.network == second.network),
        }
        for (first, second), found in pairs
    ])  # fmt: skip


def _write(path: Path, fields: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
