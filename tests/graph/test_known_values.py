"""Numbers that a forward reads from its own constants: known without any input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import prunecli
from prunecli.graph.tracing.known_values import FollowingConstants
from prunecli.graph.tracing.trace import trace


class Grid(nn.Module):
    """A head whose grid has strides that it keeps as a plain tensor, and other outputs to train."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 32, 3, padding=1)
        self.boxes = nn.Conv2d(32, 4, 1)
        self.stride = torch.tensor([8.0, 16.0])

    def forward(self, x: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        found = [self.boxes(self.features(x).relu())]
        if self.training:
            return found
        full = found[0].new_full((1, 4, 1, 1), self.stride[0])
        return (found[0] * full, found)


def test_a_model_that_fills_with_its_own_constant_is_pruned_and_proven_for_any_size():
    torch.manual_seed(0)
    model = Grid().eval()
    result = prunecli.prune(model, torch.zeros(1, 3, 16, 16), flops=0.5, align=1)
    verified = result.report.verified
    assert (result.report.mode, verified.by_structure, verified.limits) == ("module", True, ())
    assert verified.scope == "any batch and any image size"
    assert result.report.training.verified
    decoded, (raw,) = result.model(torch.randn(2, 3, 24, 16))
    torch.testing.assert_close(decoded, raw * 8)
    (trained,) = result.model.train()(torch.randn(2, 3, 24, 16))
    trained.sum().backward()
    assert result.model.features.weight.grad.abs().sum() > 0


def test_the_graph_has_the_number_and_no_question():
    traced = trace(Grid().eval(), (torch.zeros(1, 3, 16, 16),))
    names = [str(node.target) for node in traced.graph.nodes]
    assert not any("item" in name or "local_scalar" in name for name in names)
    (filled,) = (node for node in traced.graph.nodes if "new_full" in str(node.target))
    assert filled.args[2] == 8.0
    assert traced.constants == {}


def test_what_follows_from_constants_has_a_value_and_nothing_else_has():
    mode, constant = FakeTensorMode(allow_non_fake_inputs=True), torch.tensor([3.0, 5.0])
    given = mode.from_tensor(torch.zeros(2))
    with mode, FollowingConstants(mode):
        assert (constant * 2).sum().item() == 16.0
        with pytest.raises(DataDependentOutputException):
            (constant * given).sum().item()


def test_a_constant_that_changes_has_no_value():
    mode, constant = FakeTensorMode(allow_non_fake_inputs=True), torch.tensor([3.0, 5.0])
    with mode, FollowingConstants(mode):
        first = constant[0]
        constant.add_(1)
        with pytest.raises(DataDependentOutputException):
            first.item()
