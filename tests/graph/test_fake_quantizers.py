"""Models prepared for quantisation-aware training: fake quantisers follow the cut and go on."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import prunecli
from prunecli.errors import InputError
from prunecli.graph.tracing.fake_quantizers import OBSERVES, at_rest, switches
from prunecli.graph.tracing.running import evaluating

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.conv2(x))
        return self.fc(x.mean((2, 3)))


def prepared(*, batches: int = 3) -> nn.Module:
    """Return a model as `prepare_qat_fx` makes it, after a few batches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch asks for a move to torchao
        from torch.ao.quantization import get_default_qat_qconfig_mapping, quantize_fx

        torch.manual_seed(0)
        mapping = get_default_qat_qconfig_mapping("x86")
        model = quantize_fx.prepare_qat_fx(Net().train(), mapping, (X,))
    for at in range(batches):
        model(X * (at + 1))
    return model.eval()


@pytest.fixture(scope="module")
def pruned():
    """Return a model, its tensors before, and what came of pruning it."""
    model = prepared()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    return model, before, prunecli.prune(model, X, flops=0.5)


def test_the_callers_observers_see_nothing(pruned):
    model, before, _ = pruned
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_scales_and_ranges_of_channels_follow_the_cut(pruned):
    _, before, result = pruned
    own = result.model.state_dict()
    assert result.plan.mode == "module"
    for layer in ("conv1", "conv2"):
        kept = list(result.plan.slices[f"{layer}.weight"][0])
        assert len(kept) < 8
        for name in ("scale", "zero_point", "activation_post_process.min_val"):
            key = f"{layer}.weight_fake_quant.{name}"
            assert torch.equal(own[key], before[key][kept])
    assert own["fc.weight_fake_quant.scale"].shape == (5,)


def test_the_proof_is_exact_and_covers_the_rounding(pruned):
    verified = pruned[2].report.verified
    assert verified.by_structure
    assert verified.max_rel_error < 1e-10
    assert verified.limits == ()


def test_the_cut_rounds_as_the_masked_original_does(pruned):
    model, _, result = pruned
    masked, slim = copy.deepcopy(model), result.model
    with torch.no_grad():  # weights that read removed channels are zeroed, by hand
        for name, tensor in masked.named_parameters():
            kept = result.plan.slices.get(name, {}).get(1)
            if kept is not None:
                tensor[:, [at for at in range(tensor.shape[1]) if at not in kept]] = 0
    with evaluating(masked, slim), torch.no_grad():
        expected, own = masked(X), slim(X)
    same = (own - expected).abs() < 1e-5 * expected.abs().max()
    assert float(same.float().mean()) >= 0.9  # a sum on an edge may be rounded to the next step
    assert float((own - expected).abs().max() / expected.abs().max()) < 0.05


def test_observers_of_the_cut_model_go_on_in_training(pruned):
    slim = copy.deepcopy(pruned[2].model).train()
    key = "conv1.weight_fake_quant.activation_post_process.min_val"
    seen = "activation_post_process_0.activation_post_process.max_val"
    before = {name: slim.state_dict()[name].clone() for name in (key, seen)}
    with torch.no_grad():
        slim.conv1.weight *= 2
    slim(X * 10).sum().backward()
    assert all(not torch.equal(slim.state_dict()[name], value) for name, value in before.items())
    assert all(value.grad is not None for value in slim.parameters())


def test_a_model_whose_observers_have_seen_nothing_is_an_early_error():
    with pytest.raises(InputError, match="have seen no input") as caught:
        prunecli.prune(prepared(batches=0), X, flops=0.5)
    assert caught.value.code == "NO_RANGES"
    assert "training mode" in caught.value.hint


def test_switches_are_restored_after_evaluation():
    model = prepared()
    states = [value.clone() for value in switches((model,), OBSERVES)]
    assert states
    assert all(bool(value) for value in states)
    with at_rest(model, switch=OBSERVES):
        assert not any(bool(value) for value in switches((model,), OBSERVES))
    assert all(bool(value) for value in switches((model,), OBSERVES))


def test_models_prepared_by_pt2e_are_cut_too():
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(Net().train(), (X,)).module()
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
        model = prepare_qat_pt2e(exported, quantizer)
        for _ in range(3):
            model(X)
        move_exported_model_to_eval(model)
    result = prunecli.prune(model, X, flops=0.6)
    assert result.report.verified.by_structure
    assert result.model(X).shape == (4, 5)
