"""Tests for what operators give on tensors without values: the same as torch says of each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from prunecli.graph.tracing.shapes import Shapes, fake_like, norms_keep_shapes

CALLS = {
    "convolution": lambda x: functional.conv2d(x, x.new_ones(6, 4, 3, 3), stride=2, padding=1),
    "layers that share kinds": lambda x: (x + x).relu() + (x + x).relu(),
    "types that differ in a number alone": lambda x: torch.cat([x.long() * 1 + x, x.long() * 1.0]),
    "a column for a row": lambda x: x.transpose(2, 3) + x.transpose(2, 3).relu(),
    "channels last": lambda x: functional.max_pool2d(x.to(memory_format=torch.channels_last), 2),
    "a view of a part": lambda x: x[:, 1:3].relu() + x[:, 1:3].clone(),
    "several results": lambda x: x.topk(2, dim=1)[1],
    "memory of its own": lambda x: torch.zeros(3, dtype=x.dtype, device=x.device) + x[0, 0, 0, 0],
    "in place": lambda x: x.clone().add_(1).mul_(x),
}


class _Asked(TorchDispatchMode):
    """Sends every operator through `Shapes`."""

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.shapes = Shapes(mode)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.shapes.call(func, args, kwargs or {})


def _kind(value: Tensor) -> tuple:
    return value.dtype, tuple(value.shape), value.stride(), value.device, value.storage_offset()


@pytest.mark.parametrize("name", CALLS)
def test_a_remembered_result_is_what_an_operator_gives(name):
    real = torch.randn(2, 4, 8, 6)
    mode = FakeTensorMode()
    given = fake_like(mode, real)
    with mode, _Asked(mode):
        found = [CALLS[name](given) for _ in range(2)]
    expected = CALLS[name](real)
    assert [_kind(value) for value in found] == [_kind(expected)] * 2
    assert all(isinstance(value, FakeTensor) for value in found)
    memories = {value.untyped_storage()._cdata for value in (*found, given)}
    assert len(memories) == 3


def test_an_operator_that_fails_fails_every_time():
    mode = FakeTensorMode()
    given = fake_like(mode, torch.randn(2, 4))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="reduction dim"), mode, _Asked(mode):
            given @ given


NORMS = {
    "usual memory": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "turned": lambda x: x.transpose(2, 3),
    "a part": lambda x: x[:, :, 1:, 1:],
    "half precision": lambda x: x.half(),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_a_batch_norm_gives_what_torch_says(name, training):
    example = NORMS[name](torch.randn(3, 4, 6, 5))
    layer = nn.BatchNorm2d(4).train(training).to(example.dtype)

    def run() -> list[tuple]:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode, torch.no_grad():
            value = NORMS[name](torch.randn(3, 4, 6, 5))
            held = [layer.weight, layer.bias, layer.running_mean, layer.running_var]
            weights = [mode.from_tensor(one) for one in held]
            given = torch.ops.aten.native_batch_norm(value, *weights, training, 0.1, 1e-5)
        return [_kind(one) for one in given]

    expected = run()
    with norms_keep_shapes():
        assert run() == expected


def test_a_batch_norm_of_another_width_is_refused():
    with norms_keep_shapes(), FakeTensorMode(), pytest.raises(RuntimeError, match="running_mean"):
        functional.batch_norm(torch.randn(2, 5, 4, 4), torch.zeros(4), torch.ones(4))
