"""What a forward does, on tensors without values: equal for equal functions, else different."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunecli.proof.events import Fakes

IMAGES = [torch.zeros(2, 4, 8, 8)]


class Net(nn.Module):
    """A convolution and a forward that is given."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)
        self.register_buffer("table", torch.tensor([2, 0, 3, 1]))
        self.register_buffer("count", torch.zeros(()))
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def events(forward, **condition):
    return Fakes().events(Net(forward), IMAGES, **condition)


def _halves_swapped(net, x):
    found = net.layer(x)
    return torch.cat([found[:, 2:], found[:, :2]], 1)


SAME = [
    (lambda net, x: net.layer(x).relu(), lambda net, x: functional.relu_(net.layer(x))),
    (lambda net, x: torch.cat(net.layer(x).chunk(2, 1)[::-1], 1),
     _halves_swapped),
    (lambda net, x: net.layer(x).flatten(1), lambda net, x: net.layer(x).reshape(len(x), -1)),
    (lambda net, x: net.layer(x)[:, net.table], lambda net, x: net.layer(x)[:, [2, 0, 3, 1]]),
    (lambda net, x: net.layer(x), lambda net, x: (net.layer(x), net.layer(x + 1))[0]),
]  # fmt: skip

DIFFERENT = [
    (lambda net, x: net.layer(x) * 2.0, lambda net, x: net.layer(x) * 2.5, "mul"),
    (lambda net, x: net.layer(x)[:, :2], lambda net, x: net.layer(x)[:, 2:], "returned"),
    (lambda net, x: net.layer(x)[:, net.table], lambda net, x: net.layer(x)[:, [2, 0, 1, 3]], ""),
    (lambda net, x: net.layer(x) - x, lambda net, x: x - net.layer(x), "sub"),
    (lambda net, x: net.layer(x).relu(), lambda net, x: net.layer(x), "nothing"),
    (lambda net, x: (net.count.add_(1), net.layer(x))[1], lambda net, x: net.layer(x), ""),
    (lambda net, x: net.layer(x) * torch.tensor([1.5]),
     lambda net, x: net.layer(x) * torch.tensor([1.25]), "mul"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), SAME)
def test_one_function_in_two_spellings_has_equal_events(first, second):
    found = events(first)
    assert found.calls
    assert not found.difference(events(second))
    with torch.no_grad():  # the oracle: they do compute the same
        net = Net(first)
        x = torch.randn(2, 4, 8, 8)
        assert torch.equal(first(net, x), second(net, x))


@pytest.mark.parametrize(("first", "second", "said"), DIFFERENT)
def test_other_functions_have_other_events(first, second, said):
    difference = events(first).difference(events(second))
    assert difference
    assert said in difference


def test_types_and_gradients_change_no_event_of_a_plain_forward():
    def forward(net, x):
        return functional.silu(net.layer(x), inplace=True).mean((2, 3))

    plain = events(forward)
    assert not plain.difference(events(forward, grad=True))
    double = events(forward, dtype=torch.float64)
    assert [call.operator for call in double.calls] == [call.operator for call in plain.calls]


def test_a_cast_counts_unless_the_type_is_the_condition():
    def cast(net, x):
        return net.layer(x).to(torch.float32) * 2

    def plain(net, x):
        return net.layer(x) * 2

    assert not events(cast).difference(events(plain))  # float32 already
    assert not events(cast, dtype=torch.float64).difference(events(plain, dtype=torch.float64))
    doubled = events(lambda net, x: net.layer(x).double() * 2)
    assert "_to_copy" in doubled.difference(events(plain))


def test_the_network_and_its_buffers_stay_as_they_are():
    net = Net(lambda net, x: (net.count.add_(1), net.layer(x))[1])
    found = Fakes().events(net, IMAGES)
    assert float(net.count) == 0
    assert type(net.layer.weight) is nn.Parameter
    assert net.layer.weight.requires_grad
    assert [name for name, _ in found.moved] == ["count"]


def test_a_forward_that_asks_for_values_raises():
    with pytest.raises(Exception, match="_local_scalar_dense"):
        events(lambda net, x: net.layer(x) if float(x.mean()) > 0 else x)


def test_a_buffer_that_moves_with_gradients_is_fresh_in_the_next_call():
    net = Net(lambda net, x: (net.count.add_(net.layer(x).mean()), net.layer(x))[1])
    fakes = Fakes()
    plain = fakes.events(net, IMAGES)
    fakes.events(net, IMAGES, grad=True)
    assert not plain.difference(fakes.events(net, IMAGES))


def test_a_large_table_is_told_by_its_content_at_once():
    start = time.process_time()
    model = nn.Module()
    model.register_buffer("table", torch.arange(1_000_000).view(1000, 1000).t())
    other = nn.Module()
    other.register_buffer("table", torch.arange(1_000_000).view(1000, 1000).t() + 1)
    names = [next(iter(Fakes()._state(one, None).values())).name for one in (model, model, other)]
    assert names[0] == names[1] != names[2]
    assert time.process_time() - start < 2
