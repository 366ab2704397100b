"""Checkpoints of timm, which are read by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import prunecli
from prunecli.architectures.registry import architecture_of
from prunecli.budget import make_budget
from prunecli.checkpoint import load
from prunecli.errors import InputError
from prunecli.options import LoadOptions
from prunecli.verbs import prune

if TYPE_CHECKING:
    from pathlib import Path

timm = pytest.importorskip("timm")
NAME = "mobilenetv3_small_050"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    torch.save(timm.create_model(NAME, num_classes=7).state_dict(), path)
    return path


def test_the_class_count_and_the_input_of_a_timm_checkpoint_are_found(checkpoint: Path) -> None:
    loaded = load(checkpoint, architecture=f"timm/{NAME}").checkpoint
    assert loaded.architecture.kwargs == {"num_classes": 7}
    assert loaded.input.shape == tuple(timm.get_pretrained_cfg(NAME).input_size)


def test_an_artefact_of_a_timm_network_loads_by_itself(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut.pt"
    prune(
        checkpoint,
        output=out,
        budget=make_budget(flops=0.5),
        load=LoadOptions(architecture=f"timm/{NAME}"),
    )
    model = prunecli.load(out)
    assert type(model) is type(timm.create_model(NAME))
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_a_name_that_timm_lacks_is_refused_with_near_ones() -> None:
    with pytest.raises(InputError, match="no model 'mobilenetv3_small_05'") as caught:
        architecture_of("timm/mobilenetv3_small_05")
    assert "timm/mobilenetv3_small_050" in caught.value.hint


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "../net", "hf_hub:x"])
def test_a_file_cannot_make_timm_fetch_anything(name: str) -> None:
    with pytest.raises(InputError, match="timm has no model"):
        architecture_of(f"timm/{name}")
