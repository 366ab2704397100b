"""A mean over the weights of a network that was cut before is taken over those it once had."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from prunecli import verbs
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget, parse_sweep
from prunecli.checkpoint import save
from prunecli.options import AnalyzeOptions, PruneOptions
from prunecli.plan import PruningPlan

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from prunecli.checkpoint import Checkpoint
    from prunecli.report import PruneReport

MEAN = "weight/value/l1/l0"


@pytest.fixture
def twice(make_checkpoint, tmp_path: Path, monkeypatch) -> tuple[Checkpoint, Path]:
    """Return a dense plain network, and the file of its first cut."""
    monkeypatch.chdir(tmp_path)
    dense = make_checkpoint("digits_vgg")
    save(dense, tmp_path / "dense.pt")
    report = verbs.prune(
        tmp_path / "dense.pt",
        budget=make_budget(sparsity=0.5),
        options=PruneOptions(align=1, allocation="uniform"),
        output=tmp_path / "once.pt",
    )
    return dense, report.output


def means(dense: Checkpoint, path: Path) -> dict[str, Tensor]:
    """Return, for every layer of a plain network, the sums of its rows over their dense sizes."""
    found = {}
    tensors = read(path).checkpoint.tensors
    for name, weight in tensors.items():
        if name.endswith("weight") and weight.dim() > 1:
            bias = tensors.get(f"{name.removesuffix('weight')}bias")
            rows = weight.double().abs().flatten(1).sum(1)
            size = math.prod(dense.tensors[name].shape[1:])
            if bias is not None:
                rows, size = rows + bias.double().abs(), size + 1
            found[name.removesuffix(".weight")] = rows / size
    return found


def test_analyze_shows_means_over_the_dense_sizes(twice) -> None:
    dense, path = twice
    options = AnalyzeOptions(signal=MEAN, sensitivity=False)
    report = verbs.analyze(model=path, options=options)
    expected = means(dense, path)
    seen = [layer for layer in report.model.layers if layer.saliency is not None]
    assert len(seen) == 6
    for layer in seen:
        assert layer.saliency == pytest.approx(float(expected[layer.name].mean()), rel=1e-5)
    # Something was cut before, or the sizes would not matter.
    assert any(len(expected[layer.name]) < len(dense.tensors[f"{layer.name}.weight"])
               for layer in seen)  # fmt: skip


def test_a_second_cut_removes_the_least_means_over_the_dense_sizes(twice) -> None:
    dense, path = twice
    expected = means(dense, path)
    plan = PruningPlan.from_json(cut(path).plan)
    kept, gone = [], []
    for name, indices in plan.keep.items():
        for at, value in enumerate(expected[name].tolist()):
            (kept if at in indices else gone).append(value)
    assert len(gone) > 10
    assert max(gone) <= min(kept)


def test_a_sweep_keeps_what_a_cut_keeps(twice) -> None:
    _, path = twice
    report = verbs.sweep(
        path,
        sweep=parse_sweep("sparsity=0.2:0.2:0.1"),
        signals=[MEAN],
        allocations=["global"],
        options=PruneOptions(align=1, limit=64),
        data="digits",
    )
    (trial,) = (trial for trial in report.trials if trial.signal == MEAN)
    assert dict(trial.kept) == pytest.approx(dict(cut(path).cost.kept))


def cut(path: Path) -> PruneReport:
    return verbs.prune(
        path,
        budget=make_budget(sparsity=0.2),
        options=PruneOptions(signal=MEAN, allocation="global", align=1),
        dry_run=True,
    )
