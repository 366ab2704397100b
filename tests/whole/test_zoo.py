"""Twelve networks of the zoos, cut with default options: what `benchmarks/zoo.py` does to all."""

from __future__ import annotations

import inspect
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from zoo_models import prepare_

import prunecli

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

FAST_PROOF = 1e-8


@dataclass(frozen=True)
class Small:
    """A network of a zoo on a small input; `options` make it shallower."""

    source: str
    name: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = FACTORIES[self.source](self.name, self.options).eval()
            prepare_(model, [torch.zeros(self.shape)])
        return model


def _torchvision(name: str, options: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    known = inspect.signature(models.get_model_builder(name)).parameters
    backbone = {"weights_backbone": None} if "weights_backbone" in known else {}
    return models.get_model(name, weights=None, **backbone, **options)


def _torchvision_class(name: str, options: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    return getattr(models, name)(**options)


def _timm(name: str, options: Mapping[str, Any]) -> nn.Module:
    return pytest.importorskip("timm").create_model(name, **options)


FACTORIES = {
    "torchvision": _torchvision,
    "torchvision class": _torchvision_class,
    "timm": _timm,
}

SHALLOW_DENSENET = {"growth_rate": 16, "block_config": (2, 3, 2), "num_init_features": 32}
SHALLOW_SWIN = {
    "patch_size": [4, 4], "embed_dim": 48, "depths": [2, 2], "num_heads": [3, 6],
    "window_size": [4, 4], "num_classes": 10,
}  # fmt: skip
NETWORKS = (
    Small("torchvision", "resnet18", (1, 3, 64, 64)),
    Small("torchvision", "mobilenet_v3_small", (1, 3, 64, 64)),
    Small("torchvision", "shufflenet_v2_x0_5", (1, 3, 64, 64)),
    Small("torchvision class", "DenseNet", (1, 3, 64, 64), SHALLOW_DENSENET),
    Small("timm", "vit_tiny_patch16_224", (1, 3, 64, 64), {"img_size": 64, "depth": 3}),
    Small("torchvision class", "SwinTransformer", (1, 3, 64, 64), SHALLOW_SWIN),
    Small("timm", "convnext_atto", (1, 3, 64, 64), {"depths": (1, 1, 2, 1)}),
    Small("torchvision", "lraspp_mobilenet_v3_large", (1, 3, 64, 64)),
    Small("torchvision", "mc3_18", (1, 3, 4, 32, 32)),
    Small("timm", "efficientnet_lite0", (1, 3, 64, 64)),
    Small("timm", "mixer_s32_224", (1, 3, 64, 64), {"img_size": 64}),
    Small("timm", "vit_relpos_small_patch16_224", (1, 3, 64, 64), {"img_size": 64, "depth": 3}),
)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_network_of_the_zoos_is_cut_to_half_and_proven(network: Small) -> None:
    model = network.build()
    result = prunecli.prune(model, torch.zeros(network.shape), flops=0.5, signal="l2")
    assert 0.48 <= result.report.cost.kept["flops"] <= 0.50
    assert result.report.verified.max_rel_error < FAST_PROOF
    assert result.model(torch.randn(2, *network.shape[1:])) is not None
