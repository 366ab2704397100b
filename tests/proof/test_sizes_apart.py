"""A forward that goes another way at another image size is proven there by a trace of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from tests.support.weights import randomize_


class Positions(nn.Module):
    """Attention over patches, whose table of positions is resized where the image is another."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim, self.side = 4, 8, 4
        self.patches = nn.Conv2d(3, 32, 4, stride=4)
        self.table = nn.Parameter(torch.randn(1, 32, 4, 4))
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.classes = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        table = self.table
        if x.shape[2] != self.side or x.shape[3] != self.side:
            # In single precision on purpose, as models do whose weights may be of 16 bits.
            table = functional.interpolate(table.float(), size=x.shape[2:], mode="bilinear").to(x)
        x = (x + table).flatten(2).transpose(1, 2)
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=0.3)
        x = x + self.o(mixed.transpose(1, 2).reshape(*x.shape[:-1], -1))
        return self.classes(x.mean(1))


def test_a_resized_table_beside_attention_is_no_limit_and_right_at_other_sizes():
    torch.manual_seed(0)
    model = randomize_(Positions()).eval()
    result = prunecli.prune(model, torch.zeros(1, 3, 16, 16), flops=0.7, align=1, min_width=2)
    cut = [group.name for group in result.report.groups if group.after < group.before]
    assert {"q", "v"} <= set(cut)
    assert result.report.mode == "module"
    assert (result.report.verified.by_structure, result.report.verified.limits) == (True, ())
    assert result.report.verified.scope == "any batch and any image size"
    with torch.no_grad():  # the oracle: what makes and reads removed channels is zero
        for name, dims in result.plan.slices.items():
            tensor = model.state_dict()[name]
            for dim, kept in dims.items():
                gone = [at for at in range(tensor.shape[dim]) if at not in kept]
                tensor.index_fill_(dim, torch.tensor(gone), 0.0)
        for size in (16, 24, 32):
            images = torch.randn(2, 3, size, size)
            torch.testing.assert_close(result.model(images), model(images))
