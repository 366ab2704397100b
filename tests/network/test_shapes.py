"""Networks whose weights are tied, frozen, buffers, lazy or oddly named are cut all the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.errors import GraphError, InputError
from prunecli.network.traced import read_network
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 8, 8)


class Activated(nn.BatchNorm2d):
    """A batch norm that owns its activation, slopes and all."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.PReLU(width)

    def forward(self, x):
        return self.act(super().forward(x))


class Tied(nn.Module):
    """Two convolutions with one weight, a buffer with channels, and a size that is baked in."""

    def __init__(self, *, baked: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first, self.second = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.second.weight = self.first.weight
        self.norm = Activated(16)
        self.register_buffer("kernel", torch.ones(16, 1, 3, 3))
        self.fc = nn.Linear(16, 5)
        self.width = 16 if baked else -1

    def forward(self, x):
        x = self.norm(self.second(self.first(self.stem(x)).relu()))
        x = functional.conv2d(x, self.kernel, groups=16 if self.width > 0 else x.shape[1])
        return self.fc(x.view(x.shape[0], self.width, 36).mean(2))


def tied(*, baked: bool) -> nn.Module:
    return randomize_(Tied(baked=baked), seed=0).eval()


@pytest.mark.parametrize(("baked", "mode"), [(False, "module"), (True, "graph")])
def test_tied_weights_are_one_tensor(baked: bool, mode: str) -> None:
    model = tied(baked=baked)
    result = prunecli.prune(model, IMAGE, params=0.6, align=1)
    assert result.report.mode == mode
    kept = sum(value.numel() for value in result.model.parameters())
    assert kept == result.report.cost.after.params <= 0.6 * result.report.cost.before.params
    assert result.model(IMAGE).shape == (1, 5)


def test_graph_mode_keeps_what_is_trained_and_what_is_not() -> None:
    model = tied(baked=True)
    model.stem.requires_grad_(requires_grad=False)
    rebuilt = prunecli.prune(model, IMAGE, params=0.6, align=1).model
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    assert {name: value.requires_grad for name, value in rebuilt.named_parameters()} == before
    assert "kernel" in dict(rebuilt.named_buffers())


def test_graph_mode_keeps_the_rest_of_a_subclass_of_batch_norm() -> None:
    model = tied(baked=True)
    network = read_network(model, [IMAGE])
    whole, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    assert isinstance(whole.norm, nn.modules.batchnorm._BatchNorm)
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(whole(x), model(x), atol=1e-6)
    before = copy.deepcopy(whole.norm.running_mean)
    whole.train()(x)
    assert not torch.equal(whole.norm.running_mean, before)


def test_an_operator_whose_weight_is_a_number_has_no_weight() -> None:
    class Blend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 16), nn.Linear(4, 16)
            self.fc = nn.Linear(16, 3)

        def forward(self, x):
            return self.fc(torch.lerp(self.first(x), self.second(x), 0.3))

    result = prunecli.prune(Blend().eval(), torch.zeros(2, 4), flops=0.6, align=1)
    assert result.report.cost.kept["flops"] <= 0.6


def test_a_layer_without_weights_yet_is_named() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.Linear(144, 2))
    with pytest.raises(InputError) as caught:
        prunecli.prune(model, IMAGE, flops=0.5)
    assert (caught.value.code, caught.value.where) == ("NO_WEIGHTS", "0.weight")


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def test_small_half_precision_weights_are_told_apart() -> None:
    model = randomize_(chain(), seed=0)
    model[0].weight.data.mul_(1e-4)
    model[0].bias.data.zero_()
    exact = prunecli.prune(model, IMAGE, sparsity=0.5, align=1).plan.keep
    half = prunecli.prune(model.half(), IMAGE.half(), sparsity=0.5, align=1).plan.keep
    assert half == exact


def test_what_stays_whole_anyway_can_be_excluded_but_not_asked_for_alone() -> None:
    model = randomize_(chain(), seed=0)
    result = prunecli.prune(model, IMAGE, flops=0.6, align=1, exclude=["6", "2"])
    assert result.model[2].out_channels == 16
    for wrong in ({"only": ["6"]}, {"exclude": ["7"]}):
        with pytest.raises(InputError) as caught:
            prunecli.prune(model, IMAGE, flops=0.6, **wrong)
        assert caught.value.code == "NO_SUCH_LAYER"


def test_a_network_that_cannot_be_cut_says_what_holds_it() -> None:
    class Compete(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.fc = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.fc(self.first(x).softmax(1))

    with pytest.raises(GraphError, match="softmax lets these channels compete"):
        prunecli.prune(Compete(), torch.zeros(2, 4), flops=0.6)


def test_token_inputs_and_yes_or_no_outputs_can_be_proven() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.hidden = nn.Embedding(20, 8), nn.Linear(8, 16)
            self.fc = nn.Linear(16, 3)

        def forward(self, tokens):
            scores = self.fc(self.hidden(self.table(tokens).mean(1)).relu())
            return scores, scores > 0

    tokens = torch.randint(0, 20, (1, 7), generator=torch.Generator().manual_seed(0))
    result = prunecli.prune(randomize_(Words(), seed=0), tokens, flops=0.6, align=1)
    assert result.report.verified.max_rel_error < 1e-8
    assert result.model(tokens)[1].dtype == torch.bool


def test_a_network_that_cannot_be_copied_is_cut_in_graph_mode() -> None:
    model = randomize_(chain(), seed=0)
    model.computed = model[0].weight * 2  # a result of autograd: deepcopy refuses it
    result = prunecli.prune(model, IMAGE, flops=0.6, align=1)
    assert result.report.mode == "graph"


def test_what_a_forward_stores_in_a_cache_is_not_left_in_the_callers_model() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.cache = nn.Parameter(torch.randn(8)), {}
            self.stem, self.body, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 3)

        def forward(self, x):
            if x.device not in self.cache:
                self.cache[x.device] = self.table.sin()
            return self.fc(self.body(self.stem(x)).mean((2, 3)) * self.cache[x.device])

    model = randomize_(Caching(), seed=0).eval()
    result = prunecli.prune(model, IMAGE, flops=0.6, align=1)
    assert result.report.mode == "module"
    assert model.cache == {}
    assert result.model.cache == {}
    assert result.model(IMAGE).shape == (1, 3)


def test_a_module_under_two_names_and_a_tied_weight_are_left_as_they_were() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
            self.again = nn.Sequential(self.body, nn.ReLU())
            self.tied, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 3)
            self.tied.weight = self.body.weight

        def forward(self, x):
            return self.fc(self.tied(self.again(self.body(self.stem(x)))).mean((2, 3)))

    model = randomize_(Twice(), seed=0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = prunecli.prune(model, IMAGE, flops=0.6, align=1)
    assert result.report.verified.max_rel_error < 1e-12
    assert model.tied.weight is model.body.weight is model.again[0].weight
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_a_cast_in_the_forward_is_proven_in_float32() -> None:
    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.b(self.a(x.float()).relu()).mean((2, 3)))

    result = prunecli.prune(randomize_(Casts(), seed=0).eval(), torch.zeros(1, 3, 8, 8), flops=0.6)
    assert result.report.verified.method == "consumer-zero in float32"
    assert result.report.verified.max_rel_error < 1e-4


def test_dropout_of_channels_and_averaged_statistics_survive_graph_mode(tmp_path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=None), nn.Dropout2d(0.5), nn.Flatten(),
        nn.Linear(8 * 16, 3),
    )  # fmt: skip
    spec = InputSpec(3, 6, 6, (0.0,) * 3, (1.0,) * 3)
    prunecli.save(randomize_(model, seed=0).eval(), tmp_path / "whole.pt", input=spec)
    loaded = prunecli.load(tmp_path / "whole.pt").train()
    x = torch.randn(4, 3, 6, 6)
    assert not torch.equal(loaded(x), loaded(x))
    before = loaded.get_buffer("1.running_mean").clone()
    loaded(x)
    assert not torch.equal(before, loaded.get_buffer("1.running_mean"))


def test_a_mask_of_minus_infinity_is_no_broken_weight() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf]))

        def forward(self, x):
            return (self.fc(self.b(self.a(x).relu()).relu()) + self.mask).softmax(-1)

    model = randomize_(Masked(), seed=0).eval()
    model.mask.copy_(torch.tensor([0.0, 0.0, -torch.inf]))
    assert prunecli.prune(model, torch.zeros(1, 4), flops=0.6, align=1).report.verified
