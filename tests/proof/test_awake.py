"""Networks as their constructors leave them are proven on weights that pass a signal."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

import prunecli
from prunecli.errors import ProofError
from prunecli.graph.tracing.folding import stored_tensors
from prunecli.graph.tracing.running import run_with
from prunecli.network.traced import read_network
from prunecli.proof.awake import signal_passing, with_statistics


class Deep(nn.Module):
    """Layers whose batch norm divides by far too much, before a head of zeros."""

    def __init__(self) -> None:
        super().__init__()
        layers = []
        for width in (3, *[16] * 6):
            layers += [nn.Conv2d(width, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(16, 4)
        for module in self.body:
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.running_var, 1e8)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Deaf(nn.Module):
    """No weights whatever let its input through."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x * 0).relu())


@pytest.mark.parametrize(
    "make",
    [
        Deep,
        lambda: torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=4),
        lambda: torchvision.models.efficientnet_b0(num_classes=10),
    ],
)
def test_an_untrained_network_is_proven(make):
    torch.manual_seed(0)
    model = make().eval()
    result = prunecli.prune(model, torch.zeros(1, 3, 32, 32), flops=0.6, align=1)
    assert result.report.verified.by_structure
    assert result.report.verified.method.endswith("on weights that pass a signal")


def test_every_layer_passes_its_signal_under_such_weights():
    torch.manual_seed(0)
    model = Deep().eval()
    network = read_network(model, [torch.zeros(2, 3, 16, 16)])
    inputs = [torch.randn(4, 3, 16, 16)]
    drawn = signal_passing(stored_tensors(model), torch.Generator().manual_seed(0))
    state = with_statistics(network.trace, drawn, inputs)
    seen = []
    for module in model.body:
        module.register_forward_hook(lambda _, __, output: seen.append(float(output.std())))
    with torch.no_grad():
        out = run_with(model, state, inputs)
    assert len(seen) == len(model.body)
    assert min(seen) > 0.1  # before: the first batch norm alone divides by 10,000
    assert float((out[0] - out[1]).abs().max()) > 0.01
    assert not model.head.weight.any()  # the model itself is left alone


def test_an_output_that_follows_no_input_under_any_weights_is_refused():
    with pytest.raises(ProofError) as failure:
        prunecli.prune(Deaf().eval(), torch.zeros(2, 8), params=0.6, align=1)
    assert failure.value.code == "EMPTY_PROOF"
