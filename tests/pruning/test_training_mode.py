"""A pruned model trains as the masked original does, also in what training alone does."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

import prunecli
from prunecli.errors import GateError
from prunecli.graph.emitting.program import build
from prunecli.network.traced import read_network
from prunecli.proof.in_training import TrainedCut, compare_in_training
from prunecli.pruning.training_mode import EVALUATION_ONLY, graph_training_warnings
from tests.support.complaint_networks import Net, conv, fc
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 8, 8)


def features(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.stem(x)).relu()


def scores(net: Net, x: Tensor) -> Tensor:
    return net.fc(net.last(x).relu().mean((2, 3)))


def network(forward, **layers) -> nn.Module:
    """Return a network of a stem with a norm, a last layer and a classifier, and these layers."""
    base = {"stem": conv(3, 16), "norm": nn.BatchNorm2d(16), "last": conv(16, 16), "fc": fc(16)}
    return randomize_(Net(forward, **base, **layers), seed=0).eval()


def pruned(model: nn.Module, **options) -> prunecli.PruneResult:
    return prunecli.prune(model, IMAGE, **{"flops": 0.5, "signal": "l2", "align": 1, **options})


def masked_in_training(
    model: nn.Module, result: prunecli.PruneResult, masked: dict[str, str], x: Tensor
) -> tuple[list[Tensor], nn.Module]:
    """Return what the original gives in training with removed channels of activations set to 0.

    `masked` maps layers to the channel group that their output is of.
    """
    dense = copy.deepcopy(model).double().train()
    for layer, group in masked.items():
        kept = torch.zeros(dense.get_submodule(layer)(*_input(dense, layer)).shape[1]).double()
        kept[list(result.plan.keep[group])] = 1
        dense.get_submodule(layer).register_forward_hook(
            lambda _, __, output, kept=kept: output * kept[:, None, None]
        )
    return tensors(dense(x)), dense


def _input(model: nn.Module, layer: str) -> tuple[Tensor]:
    module = model.get_submodule(layer)
    width = module.num_features if isinstance(module, nn.BatchNorm2d) else module.in_channels
    return (torch.randn(2, width, 3, 3).double(),)


def tensors(output) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def auxiliary(net, x):
    x = features(net, x)
    found = scores(net, x)
    return (found, net.aux(x).mean((2, 3))) if net.training else found


def deep_supervision(net, x):
    first = features(net, x)
    second = net.last(first).relu()
    found = net.fc(second.mean((2, 3)))
    if not net.training:
        return found
    return [found] + [
        head(x).mean((2, 3)) for head, x in zip(net.heads, (first, second), strict=True)
    ]


def flattened(net, x):
    x = features(net, x)
    found = scores(net, x)
    if not net.training:
        return found
    return found, net.aux(functional.adaptive_avg_pool2d(x, 2).flatten(1))


def with_gradients(net, x):
    x = features(net, x)
    found = scores(net, x)
    return (found, net.aux(x).mean((2, 3))) if torch.is_grad_enabled() else found


def second_norm(net, x):
    x = features(net, x)
    return scores(net, net.other(x) if net.training else x)


HEADS = {
    "an auxiliary head": (auxiliary, {"aux": conv(16, 4)}),
    "deep supervision": (deep_supervision, {"heads": nn.ModuleList([conv(16, 4), conv(16, 4)])}),
    "a flattened head": (flattened, {"aux": nn.Linear(64, 5)}),
    "a head that gradients switch on": (with_gradients, {"aux": conv(16, 4)}),
    "a norm": (second_norm, {"other": nn.BatchNorm2d(16)}),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_what_training_alone_reads_is_cut_along_and_trains_as_the_masked_original(name) -> None:
    forward, layers = HEADS[name]
    model = network(forward, **copy.deepcopy(layers))
    before = copy.deepcopy(model.state_dict())
    result = pruned(model)
    assert result.report.mode == "module"
    assert result.report.training.verified
    assert result.report.training.max_rel_error < 1e-9
    assert len(result.plan.keep["stem"]) < 16
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    x = torch.randn(4, 3, 8, 8).double()
    groups = {"norm": "stem", "last": "last", **({"other": "stem"} if name == "a norm" else {})}
    expected, dense = masked_in_training(model, result, groups, x)
    slim = copy.deepcopy(result.model).double().train()
    found = tensors(slim(x))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-10)
    # The gradients of what training alone reads are those of the masked original too.
    sum(value.square().sum() for value in found).backward()
    sum(value.square().sum() for value in expected).backward()
    for key, value in slim.named_parameters():
        whole = dense.get_parameter(key).grad
        for dim, kept in result.plan.slices.get(key, {}).items():
            whole = whole.index_select(dim, torch.tensor(kept))
        assert torch.allclose(value.grad, whole, atol=1e-9), key


def test_a_layer_that_makes_channels_in_training_alone_is_cut_with_the_stream_it_adds_to() -> None:
    def forward(net, x):
        found = features(net, x)
        return scores(net, found + net.other(x) if net.training else found)

    model = network(forward, other=conv(3, 16))
    result = pruned(model)
    x = torch.randn(4, 3, 8, 8).double()
    groups = {"norm": "stem", "other": "stem", "last": "last"}
    expected, _ = masked_in_training(model, result, groups, x)
    slim = copy.deepcopy(result.model).double().train()
    assert slim.other.out_channels == len(result.plan.keep["stem"]) < 16
    assert torch.allclose(slim(x), expected[0], atol=1e-10)


def test_channels_that_training_alone_makes_and_returns_stay() -> None:
    def forward(net, x):
        x = features(net, x)
        found = scores(net, x)
        return (found, x, net.end(net.aux(x).relu())) if net.training else found

    result = pruned(network(forward, aux=conv(16, 6), end=conv(6, 2)))
    assert set(result.plan.keep) == {"last"}
    assert {item.name: item.reason for item in result.frozen}["stem"] == (
        "output of the model in training"
    )
    assert result.model.aux.out_channels == 6
    assert result.report.training.verified


def test_a_weight_that_is_read_again_in_training_ties_its_channels_there() -> None:
    def forward(net, x):
        x = features(net, x)
        found = scores(net, x)
        if not net.training:
            return found
        return found, functional.conv_transpose2d(x, net.decoder.weight, padding=1)

    model = network(forward, decoder=nn.ConvTranspose2d(16, 3, 3, bias=False))
    model.decoder.weight = model.stem.weight
    result = pruned(model)
    slim = copy.deepcopy(result.model).double().train()
    assert slim.decoder.weight is slim.stem.weight
    assert slim.stem.weight.shape[0] < 16
    x = torch.randn(4, 3, 8, 8).double()
    expected, _ = masked_in_training(model, result, {"norm": "stem", "last": "last"}, x)
    for one, other in zip(slim(x), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def baked_in(net, x):
    x = features(net, x)
    found = scores(net, x)
    if not net.training:
        return found
    return found, net.aux(functional.adaptive_avg_pool2d(x, 2).view(-1, 64))


def test_a_group_whose_size_is_written_in_what_training_does_stays_whole() -> None:
    result = pruned(network(baked_in, aux=nn.Linear(64, 5)))
    assert len(result.plan.keep["stem"]) == 16
    assert len(result.plan.keep["last"]) < 16
    assert "may be written in the forward" in {i.name: i.reason for i in result.frozen}["stem"]
    assert result.report.training.verified
    assert result.model.train()(torch.randn(2, 3, 8, 8))[1].shape == (2, 5)


def test_a_budget_that_such_a_group_would_not_allow_is_met_and_the_limit_said() -> None:
    result = pruned(network(baked_in, aux=nn.Linear(64, 5)), flops=0.1)
    assert result.report.cost.kept["flops"] <= 0.1
    assert not result.report.training.verified
    assert "forward fails in training" in result.report.training.reason
    assert any(
        f"not verified: {result.report.training.reason}" in w for w in result.report.warnings
    )
    # Nothing is wrong with the budget itself.
    with pytest.raises(GateError):
        pruned(network(baked_in, aux=nn.Linear(64, 5)), flops=0.1, exclude=("stem",))


def with_targets(net, x, targets=None):
    x = features(net, x)
    found = scores(net, x)
    if not net.training:
        return found
    return functional.cross_entropy(found, targets), net.aux(x).mean()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_training_forward_that_asks_for_more_is_named_with_the_parameters_left_whole(
    dry_run,
) -> None:
    result = pruned(network(with_targets, aux=conv(16, 4)), dry_run=dry_run)
    warnings = "\n".join(result.report.warnings)
    assert "training mode of the pruned model is not verified" in warnings
    assert "2 parameters are not used in evaluation (aux.bias, aux.weight)" in warnings
    assert "they may not fit the pruned model" in warnings
    if not dry_run:
        assert not result.report.training.verified
        assert "target" in result.report.training.reason
        assert result.model.aux.weight.shape[1] == 16


def test_example_inputs_that_hold_the_targets_let_training_be_followed() -> None:
    model = network(with_targets, aux=conv(16, 4))
    example = (torch.zeros(2, 3, 8, 8), torch.tensor([0, 3]))
    result = prunecli.prune(model, example, flops=0.5, signal="l2", align=1)
    assert result.report.training.verified
    assert result.model.aux.weight.shape[1] == len(result.plan.keep["stem"]) < 16


def test_a_forward_that_draws_its_branches_is_compared_in_one_run_and_says_so() -> None:
    def forward(net, x):
        x = features(net, x)
        if not net.training or torch.rand(()) > 0.3:
            x = x + net.other(x)
        return scores(net, x)

    result = pruned(network(forward, other=conv(16, 16)))
    assert result.report.training.verified
    assert any("compared in one run alone" in warning for warning in result.report.warnings)


def test_a_parameter_that_nothing_reads_is_no_reason_to_doubt_training() -> None:
    def forward(net, x):
        return scores(net, features(net, x))

    result = pruned(network(forward, aux=conv(16, 4)))
    assert result.report.training.verified
    assert any("aux.weight" in w and "left as they are" in w for w in result.report.warnings)
    assert result.model.aux.weight.shape[1] == 16


def test_dropout_noise_and_stochastic_depth_are_no_reason_to_doubt_training() -> None:
    def forward(net, x):
        x = net.drop(features(net, x))
        if net.training:
            x = x + torch.randn_like(x)
        return scores(net, functional.dropout(net.depth(x), 0.3, net.training))

    model = network(forward, drop=nn.Dropout2d(0.5), depth=StochasticDepth(0.3, "row"))
    torch.manual_seed(5)
    result = pruned(model)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))  # nothing was drawn from the user's generator
    assert result.report.mode == "module"
    assert result.report.training.verified
    assert not any("training" in warning for warning in result.report.warnings)


@pytest.mark.parametrize("differs", [False, True])
def test_norms_over_removed_channels_are_compared_in_training_over_the_kept_ones(differs) -> None:
    def forward(net, x):
        x = net.over(net.stem(x).relu())
        x = net.drop(x) * 2 if net.training and differs else net.drop(x)
        return net.fc(x.mean((2, 3)))

    model = Net(
        forward, stem=conv(3, 16), over=nn.GroupNorm(1, 16), drop=nn.Dropout(0.5), fc=fc(16)
    )
    result = pruned(randomize_(model, seed=0).eval())
    assert result.report.verified.method == "masked-norm"
    assert result.report.training.verified
    assert result.report.training.max_rel_error < 1e-9


def padded(net, x):
    x = torch.cat([features(net, x), net.other(x)[:, list(range(16))[::-1]]], 1)
    x = net.drop(x)
    found = net.fc(net.wide(x).relu().mean((2, 3)))
    return (found, net.aux(x).mean((2, 3))) if net.training and hasattr(net, "aux") else found


PADDED = {
    "stem": conv(3, 16), "norm": nn.BatchNorm2d(16), "other": conv(3, 16), "wide": conv(32, 16),
    "fc": fc(16),
}  # fmt: skip


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_rebuilt_model_that_trains_otherwise_says_so_before_it_is_written(dry_run) -> None:
    model = Net(padded, **PADDED, drop=StochasticDepth(0.5, "row"), aux=conv(32, 2))
    result = pruned(randomize_(model, seed=0).eval(), dry_run=dry_run)
    if dry_run:
        return
    assert result.report.mode == "graph"
    assert not result.report.training.verified
    assert EVALUATION_ONLY in result.report.warnings
    assert any("a graph of evaluation does not have them" in w for w in result.report.warnings)


def test_a_method_that_trains_the_graph_says_what_it_leaves_out() -> None:
    other = read_network(network(auxiliary, aux=conv(16, 4)), [IMAGE])
    assert "auxiliary heads" in "".join(graph_training_warnings(other))
    alike = randomize_(Net(padded, **PADDED, drop=nn.Dropout(0.5)), seed=0).eval()
    assert not graph_training_warnings(read_network(alike, [IMAGE]))


def test_a_rebuilt_model_that_trains_alike_is_verified_in_training_too() -> None:
    model = randomize_(Net(padded, **PADDED, drop=nn.Dropout(0.5)), seed=0).eval()
    result = pruned(model)
    assert result.report.mode == "graph"
    assert result.report.training.verified
    assert result.report.training.max_rel_error < 1e-9
    assert EVALUATION_ONLY not in result.report.warnings


def test_a_rebuilt_model_that_names_a_type_is_compared_in_that_type() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.norm(net.stem(x.to(net.stem.weight.dtype)))
        return scores(net, x.view(-1, 16, 64).relu().view(-1, 16, 8, 8))

    result = pruned(network(forward))
    assert result.report.mode == "graph"
    assert result.report.training.verified, result.report.training


def test_a_rebuilt_model_that_lost_its_batch_norm_would_not_be_verified() -> None:
    model = randomize_(Net(padded, **PADDED, drop=nn.Dropout(0.5)), seed=0).eval()
    result = pruned(model)
    read = read_network(model, [IMAGE])
    keep = torch.zeros(read.coupling.atom_count, dtype=torch.bool).numpy()
    for group in read.coupling.groups:
        keep[[group.first + at for at in result.plan.keep[group.name]]] = True
    program = json.loads(json.dumps(result.program))
    slim = build(program, result.model.state_dict())
    cut = TrainedCut(model, slim, result.plan.slices, keep, read.trace, read.coupling)
    assert compare_in_training(cut).verified
    slim.norm.train = lambda _=True: slim.norm  # stays in evaluation mode
    assert not compare_in_training(cut).verified
