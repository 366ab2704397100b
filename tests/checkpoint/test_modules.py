"""Whole pickled modules give the weights that their state dict holds, and run nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from prunecli.architectures.registry import build_dense
from prunecli.checkpoint import load
from prunecli.checkpoint.modules import open_modules
from prunecli.checkpoint.torch_files import read_zip
from prunecli.errors import InputError


class Parts(nn.Module):
    """Has whatever a state dict leaves out, holds twice or orders."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3))
        self.last = nn.Linear(3, 2)
        self.first = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ModuleList())
        self.again = self.last
        self.register_buffer("kept", torch.randn(2))
        self.register_buffer("left", torch.randn(2), persistent=False)
        self.register_buffer("nothing", None)
        self.register_parameter("none", None)
        self.register_module("missing", None)
        self.lazy = [nn.Linear(2, 2)]
        self.last.register_forward_hook(print)


def assert_same(found, expected):
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("protocol", [2, 5])
def test_the_state_of_a_pickled_module_is_its_state_dict(protocol, tmp_path):
    module = Parts()
    torch.save({"model": module, "all": [module]}, tmp_path / "m.pt", pickle_protocol=protocol)
    opened = open_modules(read_zip(tmp_path / "m.pt"))
    assert_same(opened.value["model"], module.state_dict())
    assert opened.modules.keys() == {"model"}
    assert opened.modules["model"].name.endswith(".Parts")


def test_parametrised_and_traced_modules_are_modules(tmp_path):
    weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    traced = torch.fx.symbolic_trace(plain)
    torch.save({"a": traced, "b": weighted._modules["parametrizations"]}, tmp_path / "m.pt")
    opened = open_modules(read_zip(tmp_path / "m.pt")).value
    assert_same(opened["a"], plain.state_dict())
    assert len(opened["b"]) == 2


@pytest.fixture
def module(make_checkpoint):
    checkpoint = make_checkpoint("digits_resnet")
    module = build_dense(checkpoint.architecture, device="cpu")
    module.load_state_dict(dict(checkpoint.tensors))
    return module


class Learner(SimpleNamespace):
    """An object that trains, with its model as one of its attributes."""


SAVED = {
    "bare": (lambda m: m, "ResNet"),
    "model": (lambda m: {"epoch": 3, "model": m}, "ResNet"),
    "ema": (lambda m: {"model": None, "ema": m, "optimizer": {}}, "ResNet"),
    "parallel": (nn.DataParallel, "ResNet"),
    "compiled": (lambda m: {"net": torch.compile(m)}, "ResNet"),
    "learner": (lambda m: Learner(model=m, opt=None, lr=0.1), "ResNet"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("how", SAVED)
def test_whole_modules_are_recognised_as_their_weights_are(how, legacy, tmp_path, module):
    save, _ = SAVED[how]
    path = tmp_path / "m.pt"
    torch.save(save(module), path, _use_new_zipfile_serialization=not legacy)
    loaded = load(path)
    assert loaded.checkpoint.architecture.name == "digits_resnet"
    assert_same(loaded.checkpoint.tensors, module.state_dict())
    (said,) = loaded.warnings
    assert "a whole pickled module (" in said
    assert type(module).__qualname__ in said
    assert "its code was not run" in said


def test_modules_whose_code_is_not_there_are_read_all_the_same(tmp_path, module):
    """The class lives in a script that nobody else has."""
    script = (
        "import sys, types, torch\n"
        "from prunecli import load\n"
        "import prunecli_sample_models.networks as networks\n"
        "model = load(sys.argv[1])\n"
        "lost = types.ModuleType('lost_code'); sys.modules['lost_code'] = lost\n"
        "class Net(type(model)): pass\n"
        "Net.__module__ = 'lost_code'; Net.__qualname__ = 'Net'; lost.Net = Net\n"
        "model.__class__ = Net\n"
        "torch.save({'model': model}, sys.argv[2])\n"
    )
    torch.save(module.state_dict(), tmp_path / "plain.pt")
    paths = [str(tmp_path / name) for name in ("plain.pt", "whole.pt")]
    subprocess.run([sys.executable, "-c", script, *paths], check=True, timeout=120)
    loaded = load(tmp_path / "whole.pt")
    assert_same(loaded.checkpoint.tensors, module.state_dict())
    assert "lost_code.Net" in loaded.warnings[0]


def test_a_name_that_is_very_long_is_not_repeated_for_every_part(tmp_path):
    part = nn.Module()
    part.register_parameter("a" * 1_000_000, nn.Parameter(torch.zeros(1)))
    torch.save(nn.ModuleList([part] * 5_000), tmp_path / "m.pt")
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = open_modules(read_zip(tmp_path / "m.pt")).value
    assert sum(map(len, state)) < 10**6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start < 200_000  # kB


def changed_activation(net):
    net.layer1[0].relu = nn.SiLU()


def changed_stride(net):
    net.layer2[0].conv1.stride = (1, 1)
    net.layer2[0].downsample[0].stride = (1, 1)


def changed_epsilon(net):
    net.bn1.eps = 1e-3


def changed_pool(net):
    net.avgpool = nn.AdaptiveMaxPool2d(1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_activation, "layer1.0.relu: SiLU, not ReLU"),
        (changed_stride, "layer2.0.conv1: stride (1, 1), not (2, 2)"),
        (changed_epsilon, "bn1: eps 0.001, not 1e-05"),
        (changed_pool, "avgpool: AdaptiveMaxPool2d, not AdaptiveAvgPool2d"),
    ],
)
@pytest.mark.parametrize(
    "wrap", [lambda m: m, nn.DataParallel, lambda m: nn.ModuleDict({"net": m})]
)
def test_a_module_with_the_weights_of_another_network_is_not_taken_for_it(
    wrap, change, said, tmp_path
):
    net = resnet18(num_classes=3)
    torch.save(wrap(net), tmp_path / "same.pt")
    assert load(tmp_path / "same.pt").checkpoint.architecture.name == "resnet18"
    change(net)
    torch.save(wrap(net), tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "ARCHITECTURE_MISMATCH"
    assert said in caught.value.message
    assert load(tmp_path / "m.pt", architecture="resnet18").checkpoint  # the user knows


def test_settings_of_training_are_no_difference(tmp_path):
    net = resnet18(num_classes=3).train()
    net.relu.inplace = False
    net.bn1.momentum = 0.01
    torch.save(net, tmp_path / "m.pt")
    assert load(tmp_path / "m.pt").checkpoint.architecture.name == "resnet18"
