"""Single operators called in odd ways: what is left of the outputs follows from what is left."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.support.single_operators import check_one

FIXED = torch.tensor([2, 0, 2, 1])
NONE = torch.tensor([], dtype=torch.int64)

FOLLOWED = {
    "a scalar on the left": (lambda x: 2 - x, [4, 5]),
    "a power of a scalar": (lambda x: 2**x, [4, 5]),
    "in place on a view": (lambda x: x[1:].add_(1), [4, 5]),
    "vectors": (lambda x, y: x * y + x.relu(), [6], [6]),
    "ranks that differ": (lambda x, y: x + y, [3, 4, 5], [5]),
    "a scalar tensor": (lambda x, y: x.clamp_min(y), [4, 5], []),
    "a type of another": (lambda x, y: x.type_as(y), [4, 5], [7]),
    "to another": (lambda x, y: x.to(y) + 1, [4, 5], [3, 2]),
    "new from another": (lambda x, y: x + y.new_ones(4, 5), [4, 5], [7]),
    "made like": (lambda x: torch.zeros_like(x) + torch.full_like(x, 2), [4, 5]),
    "expanded as": (lambda x, y: x.expand_as(y), [4, 1], [4, 5]),
    "viewed as": (lambda x, y: x.view_as(y), [4, 1, 5], [4, 5]),
    "bits": (lambda x, y: ((x > 0) & (y > 0)) | ~(x > 1) ^ (y < 1), [4, 5], [4, 5]),
    "shifts": (lambda x: (x.to(torch.int64).abs() << 2) >> 1, [4, 5]),
    "floors": (lambda x, y: x // (y.abs() + 1) + x % 2, [4, 5], [4, 5]),
    "two outputs": (torch.frexp, [4, 5]),
    "choices": (
        lambda x, y: torch.where(x > 0, x, 2.0) + torch.where(y > 0, 1.0, y), [4, 5], [4, 5],
    ),
    "a negative dim": (lambda x: x.select(-1, -1) + x.sum(-1), [4, 5]),
    "a masked fill": (lambda x, y: x.masked_fill(y > 0, 0.5), [4, 5], [4, 5]),
    "an empty vector joined": (lambda x: torch.cat([torch.zeros(0), x, x]), [4, 5]),
    "joined on the last": (lambda x, y: torch.cat([x, y], dim=-1), [4, 5], [4, 3]),
    "picked twice": (lambda x: x[:, FIXED], [4, 3]),
    "nothing picked": (lambda x: x[:, NONE], [4, 3]),
    "None and a list": (lambda x: x[:, None, FIXED], [4, 3]),
    "a slice of every other": (lambda x: x[::2, -3:], [6, 5]),
    "an empty slice": (lambda x: x[:, 2:2], [4, 5]),
    "unbound": (lambda x: x.unbind(0), [3, 5]),
    "split unevenly": (lambda x: x.split([1, 0, 3], -1), [3, 4]),
    "a repeated scalar": (lambda x: x.repeat(2, 3, 1), [3, 4]),
    "squeezed to a scalar": (torch.squeeze, [1, 1]),
    "a flat view": (torch.ravel, [3, 4]),
    "rolled": (lambda x: x.roll(-2, -1), [3, 5]),
    "unshuffled": (lambda x: functional.pixel_unshuffle(x, 2), [2, 3, 4, 4]),
    "shuffled": (lambda x: functional.pixel_shuffle(x, 2), [2, 8, 2, 2]),
    "no batch": (lambda x: functional.max_pool2d(x, 2), [5, 4, 4]),
    "one tap with padding": (
        lambda x, w: functional.conv_transpose1d(x, w, stride=2, padding=2, output_padding=1),
        [1, 1, 4], [1, 1, 1],
    ),
    "a tap that only strides": (lambda x, w: functional.conv1d(x, w, stride=2, padding=2),
                                [1, 1, 4], [1, 1, 1]),
    "a group norm over positions": (lambda x: functional.group_norm(x, 2), [3, 4, 5]),
    "an instance norm": (functional.instance_norm, [3, 4, 5]),
    "statistics of a batch": (
        lambda x: functional.batch_norm(x, None, None, training=True), [3, 4, 5],
    ),
    "a grid for every image": (
        lambda x, grid: functional.grid_sample(x, grid, align_corners=False),
        [3, 4, 5, 5], [3, 2, 2, 2],
    ),
    "unpooled": (
        lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
        [3, 4, 4, 4],
    ),
    "differences with an end": (lambda x, y: torch.diff(x, prepend=y, dim=0), [4, 5], [1, 5]),
    "a sum of a weighted part": (
        lambda x, y: x.index_add(1, torch.tensor([0, 2]), y, alpha=-1), [4, 5], [4, 2],
    ),
    "weighted bags": (
        lambda rows, weights: functional.embedding_bag(
            FIXED, rows, torch.tensor([0, 2]), mode="sum", per_sample_weights=weights
        ),
        [5, 6], [4],
    ),
    "a causal mask": (
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        [2, 4, 3], [2, 4, 3], [2, 4, 5],
    ),
    "letters without an arrow": (lambda x, y: torch.einsum("ij,jk", x, y), [4, 5], [5, 3]),
    "a batch in a sum of products": (torch.addmm, [5], [4, 3], [3, 5]),
    "prelu of one slope": (functional.prelu, [4, 5], [1]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_is_left_of_the_outputs_follows_from_what_is_left(name: str) -> None:
    operation, *shapes = FOLLOWED[name]
    for seed in range(2):
        check_one(operation, *shapes, seed=seed)


@pytest.mark.parametrize(
    "name",
    ["a scalar on the left", "vectors", "a type of another", "bits", "shifts", "floors", "choices",
     "an empty vector joined", "made like", "two outputs", "new from another"],
)  # fmt: skip
def test_channels_that_pass_can_be_cut(name: str) -> None:
    operation, *shapes = FOLLOWED[name]
    assert check_one(operation, *shapes) > 0
