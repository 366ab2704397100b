"""Whatever is given for a network or its input: a clear error, or a right result."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import prunecli
from prunecli.errors import InputError, ProofError, PruneError
from tests.support.complaint_networks import Net, chain, conv, fc
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 8, 8)


def network() -> nn.Module:
    return randomize_(chain(conv(16, 16), nn.BatchNorm2d(16))(), seed=0).eval()


def failing() -> nn.Module:
    def forward(net, x):
        raise RuntimeError("no such luck")

    return Net(forward, layer=conv(3, 8))


def with_weight(value: float) -> nn.Module:
    model = network()
    model[2].weight.data[0, 0, 0, 0] = value
    return model


def with_variance(value: float) -> nn.Module:
    model = network()
    model[3].running_var[0] = value
    return model


BAD = {
    "a forward that fails": (failing, IMAGE, "FORWARD_FAILED", "no such luck"),
    "too many channels": (network, torch.zeros(1, 4, 8, 8), "FORWARD_FAILED", "have 3 channels"),
    "too few dimensions": (network, torch.zeros(3, 8), "FORWARD_FAILED", r"\(3, 8\)"),
    "integers": (network, IMAGE.long(), "FORWARD_FAILED", "long int"),
    "another precision": (network, IMAGE.half(), "FORWARD_FAILED", "Half"),
    "two inputs for one": (network, (IMAGE, IMAGE), "FORWARD_FAILED", "positional arguments"),
    "an unknown name": (network, {"image": IMAGE}, "BAD_EXAMPLE", "do not fit"),
    "no input": (network, None, "BAD_EXAMPLE", "NoneType"),
    "a shape": (network, (1, 3, 8, 8), "BAD_EXAMPLE", "hold no tensor"),
    "an array": (network, IMAGE.numpy(), "BAD_EXAMPLE", "ndarray"),
    "an empty batch": (network, torch.zeros(0, 3, 8, 8), "BAD_EXAMPLE", "is empty"),
    "no channels at all": (
        lambda: nn.Sequential(nn.Flatten(), fc(192)), IMAGE, "NOTHING_TO_CUT", "nothing can be cut"
    ),
    "no weights at all": (nn.ReLU, IMAGE, "NOTHING_TO_CUT", "nothing can be cut"),
    "the minimum already": (
        lambda: nn.Sequential(conv(3, 1), nn.Flatten(), fc(64)), IMAGE, "NOTHING_TO_CUT",
        "has only 1 channels",
    ),
    "a weight that is NaN": (lambda: with_weight(torch.nan), IMAGE, "NAN_WEIGHTS", "2.weight"),
    "an infinite weight": (lambda: with_weight(torch.inf), IMAGE, "NAN_WEIGHTS", "2.weight"),
    "an infinite variance": (lambda: with_variance(torch.inf), IMAGE, "NAN_WEIGHTS", "running_var"),
    "no memory for weights": (lambda: network().to("meta"), IMAGE, "NO_WEIGHTS", "meta device"),
    "an input elsewhere": (network, IMAGE.to("meta"), "FORWARD_FAILED", "meta"),
    "a state dict": (lambda: network().state_dict(), IMAGE, "NOT_A_NETWORK", "OrderedDict"),
    "a class": (lambda: nn.Linear, IMAGE, "NOT_A_NETWORK", "not a type"),
    "several devices": (lambda: nn.DataParallel(network()), IMAGE, "NOT_A_NETWORK", "model.module"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_clear_error_with_a_hint(name: str) -> None:
    make, example, code, words = BAD[name]
    with pytest.raises(PruneError, match=words) as caught:
        prunecli.prune(make(), example, flops=0.5)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cut_in_their_own(kind: torch.dtype) -> None:
    model = network().to(kind)
    result = prunecli.prune(model, IMAGE.to(kind), flops=0.5, align=1)
    assert {value.dtype for value in result.model.parameters()} == {kind}
    assert result.report.verified.max_rel_error < 1e-8
    assert result.model(IMAGE.to(kind)).dtype == kind


def test_a_network_in_training_mode_is_left_in_it() -> None:
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    result = prunecli.prune(model, IMAGE, flops=0.5, align=1)
    assert model.training
    assert result.model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_values_of_the_example_do_not_matter() -> None:
    plans = {
        prunecli.prune(network(), example, flops=0.5, align=1).plan.dumps()
        for example in (IMAGE, IMAGE + torch.nan, torch.randn(5, 3, 8, 8), [IMAGE])
    }
    assert len(plans) == 1


class Blocks(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, between) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 4)
        self.between = between

    def forward(self, x):
        return self.fc(self.b(self.between(self.a(x))).mean((2, 3)))


def test_a_forward_that_draws_random_numbers_is_named_as_the_cause() -> None:
    model = randomize_(Blocks(lambda x: x + torch.randn_like(x)), seed=0).eval()
    with pytest.raises(ProofError, match="draws random numbers in evaluation") as caught:
        prunecli.prune(model, torch.zeros(1, 3, 12, 12), flops=0.5)
    assert caught.value.code == "RANDOM_FORWARD"


def test_dropout_is_no_random_forward() -> None:
    model = randomize_(Blocks(nn.Dropout(0.5)), seed=0).eval()
    assert prunecli.prune(model, torch.zeros(1, 3, 12, 12), flops=0.5).report.verified


def test_a_softmax_in_float32_is_proven_to_its_own_rounding() -> None:
    model = randomize_(Blocks(lambda x: x * x.float().softmax(-1).type_as(x)), seed=0).eval()
    verified = prunecli.prune(model, torch.zeros(1, 3, 12, 12), flops=0.5).report.verified
    assert verified.max_rel_error < 1e-5


def test_a_batch_that_is_taken_apart_needs_an_example_with_one() -> None:
    model = randomize_(Blocks(lambda x: x.view(x.shape[0] // 2, 2, *x.shape[1:]).flatten(0, 1)))
    result = prunecli.prune(model.eval(), torch.zeros(4, 3, 12, 12), flops=0.5)
    assert result.model(torch.zeros(6, 3, 12, 12)).shape == (6, 4)


def test_a_scripted_part_is_refused_by_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that scripting is deprecated
        model = Blocks(torch.jit.script(nn.ReLU()))
    with pytest.raises(InputError, match="holds no Python to trace") as caught:
        prunecli.prune(model.eval(), torch.zeros(1, 3, 12, 12), flops=0.5)
    assert caught.value.where == "between"
