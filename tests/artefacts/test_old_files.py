"""Files that version 0.1.0 wrote before the code was moved are read as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import prunecli
from prunecli.artefacts.provenance import read
from prunecli.options import LoadOptions

FILES = Path(__file__).parent / "files"
OUTPUTS = json.loads((FILES / "outputs.json").read_text(encoding="utf-8"))
"""What the version that wrote each file computed for `images()`."""


def images() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_old_file_gives_the_network_that_was_written(name):
    with torch.no_grad():
        found = prunecli.load(FILES / name)(images())
    assert torch.allclose(found, torch.tensor(OUTPUTS[name]), rtol=1e-5, atol=1e-5)


def test_an_old_plan_costs_and_history_are_kept():
    pruned = read(FILES / "pruned_vgg.safetensors", LoadOptions()).checkpoint
    assert pruned.plan is not None
    assert pruned.plan.signal == "taylor"
    assert pruned.plan.cost_after["params"] < 0.4 * pruned.plan.cost_before["params"]
    trained = read(FILES / "finetuned_vgg.pt", LoadOptions()).checkpoint
    verbs = [step.get("verb") for step in trained.metadata["history"]]
    assert verbs == [None, "prune", "finetune"]


def test_the_masks_of_an_old_sparse_file_are_kept():
    sparse = read(FILES / "sparse_resnet.pt", LoadOptions()).checkpoint
    zeros = sum(int((~mask).sum()) for mask in sparse.masks.values())
    weights = sum(mask.numel() for mask in sparse.masks.values())
    assert zeros / weights == pytest.approx(0.8, abs=0.001)
    assert all(not sparse.tensors[name][~mask].any() for name, mask in sparse.masks.items())
