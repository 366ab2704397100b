"""A known network that begins otherwise is read as what it was saved from."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from prunecli.checkpoint import load
from tests.support.checkpoints import assert_is_read_as, trained

models = torchvision.models


def resnet(conv, pool=None) -> nn.Module:
    model = models.resnet18(num_classes=7)
    model.conv1 = conv
    model.maxpool = pool or model.maxpool
    return model


def densenet(conv, pool=None) -> nn.Module:
    model = models.densenet121(num_classes=7)
    model.features.conv0 = conv
    model.features.pool0 = pool or model.features.pool0
    return model


def convnext(channels) -> nn.Module:
    model = models.convnext_tiny(num_classes=7)
    model.features[0][0] = nn.Conv2d(channels, 96, 4, 4)
    return model


STEMS = {
    "grey": lambda: resnet(nn.Conv2d(1, 64, 7, 2, 3, bias=False)),
    "four channels": lambda: densenet(nn.Conv2d(4, 64, 7, 2, 3, bias=False)),
    "patches": lambda: convnext(2),
    "small images": lambda: resnet(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()),
    "small grey images": lambda: resnet(nn.Conv2d(1, 64, 3, 1, 1), nn.Identity()),
    "small images densely": lambda: densenet(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()),
}


@pytest.mark.parametrize("name", STEMS)
def test_a_network_with_another_stem_computes_what_was_saved(name, tmp_path):
    model = trained(STEMS[name]())
    torch.save(model.state_dict(), tmp_path / "m.pt")
    loaded = assert_is_read_as(tmp_path / "m.pt", model, size=None if "small" in name else 64)
    spec = loaded.checkpoint.input
    small = "small" in name
    assert (spec.height, spec.width) == ((32, 32) if small else (224, 224))
    assert len(spec.mean) == len(spec.std) == spec.channels
    assert any("guess" in warning for warning in loaded.warnings)


def test_the_guesses_are_said_with_what_says_otherwise(tmp_path):
    torch.save(STEMS["small grey images"]().state_dict(), tmp_path / "m.pt")
    channel, kernel = load(tmp_path / "m.pt").warnings
    assert "1 channel" in channel
    assert "--mean and --std" in channel
    assert "stride 1, no maxpool, images of 32x32 (--input-size" in kernel
    said = load(tmp_path / "m.pt", input_size=(48, 40), mean=(0.1,), std=(0.2,)).checkpoint.input
    assert (said.shape, said.mean, said.std) == ((1, 48, 40), (0.1,), (0.2,))


def test_another_head_and_another_stem_go_together(tmp_path):
    model = resnet(nn.Conv2d(1, 64, 3, 1, 1, bias=False), nn.Identity())
    model.fc = nn.Sequential(nn.Linear(512, 9), nn.ReLU(), nn.Linear(9, 7))
    model = trained(model)
    torch.save(
        {"state_dict": {f"net.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "m"
    )
    loaded = assert_is_read_as(tmp_path / "m", model)
    assert loaded.checkpoint.architecture.changes.keys() == {"conv1", "maxpool", "fc"}


def test_a_transformer_of_timm_tells_its_image_size(tmp_path):
    timm = pytest.importorskip("timm")
    model = trained(timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=96))
    torch.save(model.state_dict(), tmp_path / "m.pt")
    loaded = assert_is_read_as(tmp_path / "m.pt", model)
    assert loaded.checkpoint.input.shape == (3, 96, 96)
    assert loaded.checkpoint.architecture.kwargs["img_size"] == 96
