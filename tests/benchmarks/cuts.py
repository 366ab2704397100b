"""Cuts to compare with one another: without alignment, repair or proof, and how good they are."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from prunecli.allocation import Problem, allocate, allowed_widths, ceilings_of, keep_mask
from prunecli.architectures.examples import example_arguments
from prunecli.artefacts import provenance
from prunecli.artefacts.instantiate import instantiate
from prunecli.budget import make_budget
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.network.traced import Network, read_network
from prunecli.options import PruneOptions
from prunecli.pruning.scoring import score_signals
from prunecli.verbs.images import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet

HELD_OUT = 0.2
"""Share of the training images that is held out; the sample networks did not train on it."""


@dataclass(frozen=True)
class Bench:
    """A network with the training images that are looked at, and others that it is measured on."""

    name: str
    network: Network
    spec: InputSpec
    train: ImageSet
    measured: ImageSet

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the training images, normalised, with their labels."""
        return normalised(self.train, self.spec)


@dataclass(frozen=True)
class Candidate:
    """Something that ranks channels: its kind (`grid`, `preset`, `random`), name and seed."""

    kind: str
    signal: str
    seed: int = 0


@dataclass(frozen=True)
class Scores:
    """Loss and accuracy of a cut network; `bn` with batch-norm statistics estimated anew."""

    loss: float
    accuracy: float
    loss_bn: float
    accuracy_bn: float


MEASURED = tuple(field.name for field in dataclasses.fields(Scores))
FIELDS = (
    "checkpoint", "allocation", "kept", "kind", "signal", "seed", "scored", "measured", "cut",
    "kept_flops", *MEASURED,
)  # fmt: skip
CUT = ("checkpoint", "allocation", "kept", "scored", "measured", "cut")


def read_bench(path: Path, data: str, *, images: int, split: str, measured: int) -> Bench:
    """Read a checkpoint and some of its images: `images` of training, `measured` of `split`."""
    checkpoint = provenance.read(path).checkpoint
    spec, source = checkpoint.input, open_source(data)
    return Bench(
        path.name,
        read_network(instantiate(checkpoint), example_arguments(spec)),
        spec,
        load_split(source, "train", input=spec, held_out=HELD_OUT, limit=images),
        load_split(source, split, input=spec, held_out=HELD_OUT, limit=measured),
    )


def saliencies(bench: Bench, candidates: Sequence[Candidate]) -> dict[Candidate, np.ndarray]:
    """Return one saliency per channel for every candidate, in one pass over the images."""
    names = dict.fromkeys(each.signal for each in candidates if each.kind != "random")
    found = score_signals(bench.network, [*names], PruneOptions(), batches=bench.batches)
    drawn = {
        each: score_signals(bench.network, ["random"], PruneOptions(seed=each.seed))["random"]
        for each in candidates
        if each.kind == "random"
    }
    return {each: drawn[each] if each in drawn else found[each.signal] for each in candidates}


def read_rows(table: Path) -> list[dict[str, str]]:
    """Return the rows that a table has."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_missing(
    table: Path,
    bench: Bench,
    found: Mapping[Candidate, np.ndarray],
    *,
    allocation: str,
    fractions: Sequence[float],
) -> None:
    """Measure what a table lacks, a row at a time, so that a stopped run can be started again.

    `found` holds the saliencies of the candidates. Candidates that keep the same channels share one
    measurement (column `cut`).
    """
    done = read_rows(table)
    present = {tuple(row[name] for name in FIELDS[:8]) for row in done}
    known = {tuple(row[name] for name in CUT): row for row in done}
    for kept in fractions:
        for each, saliency in found.items():
            facts = (bench.name, allocation, kept, each.kind, each.signal, each.seed)
            named = (*map(str, facts), str(len(bench.train)), str(len(bench.measured)))
            if named in present:
                continue
            keep = chosen(bench.network, saliency, allocation=allocation, kept=kept)
            share = f"{kept_flops(bench.network, keep):.4f}"
            row = dict(zip(FIELDS, (*named, digest(keep), share), strict=False))
            of_cut = tuple(row[name] for name in CUT)
            row |= _texts(known.get(of_cut) or dataclasses.asdict(scores(bench, keep)))
            known[of_cut] = row
            _append(table, row)


def write_dense(table: Path, bench: Bench) -> None:
    """Measure the network as it is, if a table lacks that."""
    facts = (bench.name, "", "1.0", "dense", "dense", "0", len(bench.train), len(bench.measured))
    named = tuple(map(str, facts))
    if any(tuple(row[name] for name in FIELDS[:8]) == named for row in read_rows(table)):
        return
    keep = np.ones(bench.network.coupling.atom_count, np.bool_)
    row = dict(zip(FIELDS, (*named, digest(keep), "1.0000"), strict=False))
    _append(table, row | _texts(dataclasses.asdict(scores(bench, keep))))


def _append(table: Path, row: Mapping[str, str]) -> None:
    """Add a row to a table at once, with the head if it is the first."""
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not file.tell():
            writer.writeheader()
        writer.writerow(row)


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{float(found[name]):.5f}" for name in MEASURED}


def chosen(network: Network, saliency: np.ndarray, *, allocation: str, kept: float) -> np.ndarray:
    """Return which channels stay at a fraction of the FLOPs, without alignment."""
    groups, cost = network.coupling.groups, network.cost
    visible = {group.name for group in groups if not np.isnan(saliency[group.atoms]).any()}
    problem = Problem(
        groups,
        saliency,
        cost,
        ceilings_of(make_budget(flops=kept), cost.dense),
        allowed_widths(groups, eligible=lambda group: group.name in visible, align=1, min_width=1),
    )
    ranked = np.nan_to_num(saliency, nan=np.inf)
    return keep_mask(groups, ranked, allocate(allocation, problem))


def kept_flops(network: Network, keep: np.ndarray) -> float:
    """Return the share of the FLOPs that the channels cost that stay."""
    widths = np.asarray([keep[group.atoms].sum() for group in network.coupling.groups], np.int64)
    return network.cost.cost(widths)["flops"] / network.cost.dense["flops"]


def digest(keep: np.ndarray) -> str:
    """Return a short name of a cut, the same for cuts that keep the same channels."""
    return hashlib.sha256(np.packbits(keep).tobytes()).hexdigest()[:12]


def scores(bench: Bench, keep: np.ndarray) -> Scores:
    """Cut a network and measure it, as it is and with batch norm estimated on training images."""
    slim, _ = bench.network.graph_network(keep)
    plain = evaluate(slim, bench.measured, input=bench.spec)
    recalibrate_(slim, bench.batches())
    again = evaluate(slim, bench.measured, input=bench.spec)
    return Scores(plain.loss, plain.accuracy, again.loss, again.accuracy)


def recalibrate_(model: nn.Module, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Estimate the batch-norm statistics anew, as a plain average over the batches, in place."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.reset_running_stats()
    model.train()
    with torch.no_grad():
        for images, _ in batches:
            model(images)
    model.eval()
