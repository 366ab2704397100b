"""What single layers cost and lose: against fvcore, the cut network itself, and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from prunecli.budget import make_budget
from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.network.layers import analyzed_layers
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.road import prune_network
from tests.support.random_networks import SIDE, draw
from tests.support.random_networks import network as random_network
from tests.support.weights import randomize_


def flops_of_modules(model: nn.Module, example: torch.Tensor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, example)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return dict(analysis.by_module())


def layers_of(model: nn.Module, example: torch.Tensor):
    network = read_network(model.eval(), [example])
    ones = np.ones(network.coupling.atom_count)
    layers, elsewhere = analyzed_layers(network, ones)
    return network, {layer.name: layer for layer in layers}, elsewhere


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_0"])
def test_layers_cost_what_fvcore_counts_for_their_modules(name):
    model = models.get_model(name, num_classes=10).eval()
    example = torch.zeros(1, 3, 64, 64)
    _, layers, elsewhere = layers_of(model, example)
    counted = flops_of_modules(model, example)
    modules = dict(model.named_modules())
    weighted = [n for n, m in modules.items() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert set(layers) == set(weighted)
    for layer, found in layers.items():
        assert found.flops == counted[layer]
        assert found.params == sum(value.numel() for value in modules[layer].parameters())
        assert found.channels == len(modules[layer].weight)
    assert sum(layer.flops for layer in layers.values()) + sum(elsewhere.values()) == counted[""]
    norms = [counted[n] for n, m in modules.items() if isinstance(m, nn.BatchNorm2d)]
    assert elsewhere.get("batch_norm", 0.0) == sum(norms)


def test_channels_that_nothing_holds_may_go_and_others_have_a_reason():
    model = models.resnet18(num_classes=10)
    network, layers, _ = layers_of(model, torch.zeros(1, 3, 64, 64))
    assert layers["conv1"].free == 64
    assert layers["conv1"].groups == ("conv1",)
    assert layers["layer1.0.conv2"].groups == ("conv1",)  # tied by the residual sum
    assert layers["fc"].free == 0
    assert layers["fc"].reason == "output of the model"
    assert layers["fc"].saliency is None
    assert {group.name for group in network.coupling.groups} == {
        name for layer in layers.values() for name in layer.groups
    }


def test_the_saliency_of_a_layer_is_the_mean_over_its_own_channels():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 5, 1))
    network = read_network(model.eval(), [torch.zeros(1, 3, 4, 4)])
    layers, _ = analyzed_layers(network, np.arange(6.0))
    assert [layer.saliency for layer in layers] == [1.5, 4.5, None]
    seen, _ = analyzed_layers(network, np.asarray([0.0, 1.0, 2.0, np.nan, 4.0, 5.0]))
    assert [layer.saliency for layer in seen] == [None, 4.5, None]


class Twice(nn.Module):
    """One layer that runs two times, and a weight that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(self.first(x).relu()).relu())


def test_a_layer_that_runs_twice_is_one_row_with_the_cost_of_both():
    _, layers, _ = layers_of(Twice(), torch.zeros(1, 6))
    assert list(layers) == ["first", "last"]
    assert layers["first"].flops == 2 * 36
    assert layers["first"].params == 42


@pytest.mark.parametrize("seed", range(6))
def test_what_is_kept_of_a_layer_is_what_the_cut_network_has(seed):
    steps, head = draw(seed)
    model = randomize_(random_network(steps, head=head), seed=seed).eval()
    budget = make_budget(flops="0.6")
    example = torch.randn(2, 3, SIDE, SIDE)
    network = read_network(model, [example])
    result = prune_network(network, budget=budget, options=PruneOptions(align=1))
    sizes = {name: value.shape for name, value in result.model.state_dict().items()}
    report = result.report
    for layer in report.layers:
        weight = sizes.get(f"{layer.name}.weight", sizes.get(layer.name))
        assert weight[PRODUCERS[layer.operator]] == layer.kept
        bias = sizes.get(f"{layer.name}.bias")
        assert layer.params_kept == weight.numel() + (0 if bias is None else bias.numel())
        assert layer.flops_kept <= layer.flops
        assert not layer.reason or layer.kept == layer.channels
    counted = flops_of_modules(result.model.eval(), example[:1])[""]
    assert sum(layer.flops_kept for layer in report.layers) <= counted


def test_a_layer_that_options_hold_says_so():
    model = randomize_(models.resnet18(num_classes=10))
    result = prune_network(
        read_network(model, [torch.randn(2, 3, 64, 64)]),
        budget=make_budget(flops="0.8"),
        options=PruneOptions(exclude=("layer1.*",)),
        dry_run=True,
    )
    layers = {layer.name: layer for layer in result.report.layers}
    assert layers["layer1.0.conv1"].kept == 64
    assert "exclude" in layers["layer1.0.conv1"].reason
    assert layers["fc"].reason == "output of the model"
    assert layers["layer2.0.conv1"].kept < 128
