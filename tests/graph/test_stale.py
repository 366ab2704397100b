"""What earlier calls left in a model has no say in how it is pruned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.graph.tracing.stale import without_caches
from tests.support import hostile_forwards
from tests.support.onnx_outputs import relative_differences


class Cached(nn.Module):
    """A head that makes its grid anew where the shape of its input changes."""

    shape: torch.Size | None = None

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.features(x).relu())
        if self.shape != x.shape:
            self.grid, self.shape = torch.arange(x.shape[-1]).type_as(x), x.shape
        return x + self.grid


class CachedWidth(Cached):
    """A cache as wide as the layer before it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).relu()
        if self.shape != x.shape:
            self.grid, self.shape = torch.ones(x.shape[1], 1, 1) * x.shape[-1], x.shape
        return self.head(x * self.grid)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("make", [Cached, CachedWidth])
def test_a_model_that_has_been_called_is_pruned_as_a_new_one(make, batch):
    torch.manual_seed(0)
    model = make().eval()
    fresh = prunecli.prune(model, torch.zeros(batch, 3, 16, 16), flops=0.5, align=1)
    model(torch.randn(batch, 3, 16, 16))
    grid = model.grid.clone()
    used = prunecli.prune(model, torch.zeros(batch, 3, 16, 16), flops=0.5, align=1)
    assert used.plan == fresh.plan
    assert used.report.verified == fresh.report.verified
    assert used.report.mode == fresh.report.mode == "module"
    assert used.report.verified.limits == ()
    assert model.shape[0] == batch
    assert torch.equal(model.grid, grid)
    for size in (16, 80, 24):
        for count in (batch, 3, 1):
            x = torch.randn(count, 3, size, size)
            torch.testing.assert_close(used.model(x), fresh.model(x))


def test_a_model_without_caches_is_left_alone():
    model = hostile_forwards.Plain().eval()
    assert without_caches(model, (torch.zeros(2, 3, 32, 32),)) is model


@pytest.mark.parametrize("make", [hostile_forwards.SecondCall, hostile_forwards.CountsCalls])
def test_a_count_of_calls_is_no_cache(make):
    model = make().eval()
    before = dict(vars(model)), [value.clone() for value in model.buffers()]
    assert without_caches(model, (torch.zeros(2, 3, 32, 32),)) is model
    assert vars(model) == before[0]
    assert all(map(torch.equal, model.buffers(), before[1]))


def test_a_model_that_has_been_called_is_exported_for_any_batch_and_size(tmp_path):
    torch.manual_seed(0)
    model = Cached().eval()
    model(torch.zeros(2, 3, 16, 16))
    spec = InputSpec(3, 16, 16, (0.0,) * 3, (1.0,) * 3)
    prunecli.export(model, tmp_path / "m.onnx", input=spec, dynamic_size=True)
    for batch, size in ((1, 16), (2, 16), (3, 24)):
        images = torch.randn(batch, 3, size, size)
        assert max(relative_differences(model, tmp_path / "m.onnx", images)) < 1e-5
