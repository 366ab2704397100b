"""Attention: whole heads, the width inside heads, its temperature, and the fields that follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.cutting.surgery import cut_module, slices_of
from prunecli.cutting.temperature import temperature_factors
from prunecli.errors import InputError, ProofError
from prunecli.graph.rules.compute import einsum_letters
from prunecli.network.traced import read_network
from prunecli.plan import PruningPlan, compose_factors
from prunecli.proof.prove import prove
from tests.support.weights import randomize_

WIDTH, HEADS, INSIDE = 32, 4, 8
IMAGE = torch.zeros(1, 3, 16, 16)


class Fused(nn.Module):
    """Queries, keys and values of one layer; a temperature that is kept as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.num_heads, self.head_dim, self.scale = HEADS, INSIDE, INSIDE**-0.5

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        mixed = scores.softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, -1))


class Kernel(nn.Module):
    """Three layers and torch's kernel, whose temperature follows the width that it sees."""

    def __init__(self, key_heads: int = HEADS) -> None:
        super().__init__()
        self.q, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, INSIDE * key_heads) for _ in range(2))
        self.heads, self.key_heads = HEADS, key_heads

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            layer(x).unflatten(-1, (self.key_heads, -1)).transpose(1, 2)
            for layer in (self.k, self.v)
        )
        grouped = self.heads != self.key_heads
        mixed = functional.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class RelativePositions(nn.Module):
    """Queries meet a table of positions as well, which has no part in the kernel's temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.table = nn.Parameter(torch.randn(16, INSIDE))
        self.heads = HEADS

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        bias = torch.einsum("bhqd,kd->bhqk", q, self.table)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Einsum(nn.Module):
    """Attention in two einsums."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.heads = HEADS

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(0.3).softmax(-1)
        return self.proj(torch.einsum("bhqk,bkhd->bqhd", scores, v).flatten(2))


class Torchs(nn.Module):
    """torch's own module, which has its sizes checked in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Network(nn.Module):
    """Patches, one block of attention, a classifier."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, 4, 4), nn.LayerNorm(WIDTH)
        self.attention, self.head = attention, nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head((tokens + self.attention(self.norm(tokens))).mean(1))


ATTENTIONS = {
    "fused": Fused,
    "kernel": Kernel,
    "grouped queries": lambda: Kernel(2),
    "einsum": Einsum,
    "torch's": Torchs,
}


def network_of(name: str) -> nn.Module:
    return randomize_(Network(ATTENTIONS[name]()), seed=0).eval()


def cut(model: nn.Module, flops: float = 0.5, **options: object) -> prunecli.PruneResult:
    return prunecli.prune(model, IMAGE, flops=flops, only=["attention*"], align=1, **options)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_whole_heads_and_the_width_inside_them_are_groups_of_their_own(name: str) -> None:
    result = cut(network_of(name))
    widths = {group.name: group for group in result.report.groups}
    heads = [group for name, group in widths.items() if name.endswith(":heads")]
    inside = [group for group in widths.values() if group.before == INSIDE]
    assert [group.before for group in heads] == [2 if name == "grouped queries" else HEADS]
    assert len(inside) == (1 if name in ("fused", "torch's") else 2)
    assert heads[0].after < heads[0].before
    assert all(group.after < INSIDE for group in inside)
    assert all(group.exact for group in (*heads, *inside))
    assert result.report.verified.max_rel_error < 1e-10


@pytest.mark.parametrize("name", ["fused", "kernel", "grouped queries", "einsum"])
def test_a_cut_attention_keeps_its_class_and_its_fields_follow(name: str) -> None:
    model = network_of(name)
    result = cut(model)
    assert result.report.mode == "module"
    assert type(result.model) is Network
    slim, dense = result.model.attention, model.attention
    heads = "num_heads" if name == "fused" else "heads"
    assert getattr(slim, heads) < getattr(dense, heads) == HEADS
    if name == "fused":
        assert slim.head_dim < INSIDE
        assert slim.scale == dense.scale
        assert slim.qkv.out_features == 3 * slim.num_heads * slim.head_dim
    if name == "grouped queries":
        assert slim.heads == 2 * slim.key_heads


def test_keys_take_the_temperature_where_queries_are_read_by_others_too() -> None:
    model = randomize_(Network(RelativePositions()), seed=0).eval()
    result = cut(model)
    assert result.report.mode == "module"
    ((name, factors), (other, _)) = sorted(result.plan.factors.items(), reverse=True)
    assert (name, other) == ("attention.qkv.weight", "attention.qkv.bias")
    ((rows, factor),) = factors
    assert rows == tuple(range(WIDTH, 2 * WIDTH))  # those of the keys
    left = len(result.plan.slices["attention.table"][1])
    assert factor == pytest.approx((left / INSIDE) ** 0.5)
    dense = model.attention
    heads = np.isin(np.arange(HEADS), result.plan.keep["attention.qkv:heads"])
    inside = np.isin(np.arange(INSIDE), result.plan.slices["attention.table"][1])
    gone = torch.from_numpy(~np.tile(np.outer(heads, inside).reshape(-1), 3))
    with torch.no_grad():
        dense.qkv.weight[gone] = 0
        dense.qkv.bias[gone] = 0
        images = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(result.model(images), model(images))


def test_a_module_that_checks_its_sizes_is_cut_in_graph_mode() -> None:
    result = cut(network_of("torch's"))
    assert result.report.mode == "graph"
    assert result.plan.attributes == {}
    assert result.plan.factors == {}


def test_a_cut_attention_equals_the_dense_one_with_the_same_heads_and_widths_zeroed() -> None:
    """An oracle of its own: zero q, k, v rows and the columns that read them, by index."""
    model = network_of("einsum")
    result = cut(model)
    model = model.double()
    keep = result.plan.keep
    heads = np.isin(np.arange(HEADS), keep["attention.q:heads"])
    queries = np.isin(np.arange(INSIDE), keep["attention.q"])
    values = np.isin(np.arange(INSIDE), keep["attention.v"])
    assert 0 < heads.sum() < HEADS
    attention = model.attention
    with torch.no_grad():
        for layer, inside in (
            (attention.q, queries),
            (attention.k, queries),
            (attention.v, values),
        ):
            gone = torch.from_numpy(~np.outer(heads, inside).reshape(-1))
            layer.weight[gone] = 0
            layer.bias[gone] = 0
        x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
        torch.testing.assert_close(result.model.double()(x), model(x), rtol=1e-9, atol=1e-9)


def test_the_temperature_of_a_kernel_is_folded_into_its_queries() -> None:
    model = network_of("kernel")
    result = cut(model)
    left = len(result.plan.keep["attention.q"])
    assert left < INSIDE
    ((rows, factor),) = result.plan.factors["attention.q.weight"]
    assert factor == pytest.approx((left / INSIDE) ** 0.5)
    assert rows == tuple(range(WIDTH))
    assert "attention.k.weight" not in result.plan.factors
    kept = list(result.plan.slices["attention.q.weight"][0])
    torch.testing.assert_close(
        result.model.attention.q.weight, model.attention.q.weight[kept] * factor
    )


def test_without_the_factor_the_same_cut_is_refused() -> None:
    model = network_of("kernel")
    network = read_network(model, [IMAGE])
    keep = np.ones(network.coupling.atom_count, np.bool_)
    group = next(group for group in network.coupling.groups if group.name == "attention.q")
    keep[group.first : group.first + 4] = False
    slices = slices_of(network.coupling, keep)
    factors = temperature_factors(network.trace, network.coupling, keep)
    claim = {"trace": network.trace, "coupling": network.coupling}
    good = cut_module(model, slices, factors=factors)
    assert prove(model, good, slices, keep, factors=factors, **claim).max_rel_error < 1e-10
    with pytest.raises(ProofError, match="differs from the masked one"):
        prove(model, cut_module(model, slices), slices, keep, **claim)


def test_only_the_queries_of_a_fused_layer_are_scaled() -> None:
    class FusedKernel(Fused):
        def forward(self, x: Tensor) -> Tensor:
            n, tokens, _ = x.shape
            qkv = self.qkv(x).reshape(n, tokens, 3, self.num_heads, self.head_dim)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(q, k, v)
            return self.proj(mixed.transpose(1, 2).reshape(n, tokens, -1))

    result = cut(randomize_(Network(FusedKernel()), seed=0).eval())
    assert result.report.mode == "module"
    for name in ("attention.qkv.weight", "attention.qkv.bias"):
        ((rows, _),) = result.plan.factors[name]
        assert rows == tuple(range(WIDTH))


def test_a_second_cut_composes_fields_and_factors() -> None:
    model = network_of("kernel")
    first = cut(model, 0.8)
    second = cut(first.model, 0.8)
    factors = compose_factors(first.plan, second.plan)
    whole = cut_module(model, {}, factors=factors)
    before = first.plan.slices["attention.q.weight"][0]
    kept = [before[row] for row in second.plan.slices["attention.q.weight"][0]]
    torch.testing.assert_close(second.model.attention.q.weight, whole.attention.q.weight[kept])


def test_a_plan_with_fields_and_factors_survives_json() -> None:
    plan = cut(network_of("kernel")).plan
    assert plan.attributes
    assert plan.factors
    assert PruningPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "attributes",
    [{"attention": {"nothing": 2}}, {"nowhere": {"heads": 2}}, {"attention": {"heads": (2, 2)}}],
)
def test_a_plan_can_set_no_other_field(attributes: dict) -> None:
    with pytest.raises(InputError, match="no such attribute"):
        cut_module(network_of("kernel"), {}, attributes=attributes)


def test_a_plan_can_scale_no_position_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no such positions"):
        cut_module(network_of("kernel"), {}, factors={"attention.q.weight": (((WIDTH,), 2.0),)})


def test_uniform_allocation_shares_a_layers_fraction_between_heads_and_width() -> None:
    result = prunecli.prune(network_of("einsum"), IMAGE, flops=0.5, align=1, only=["attention*"])
    kept = {group.name: group.after / group.before for group in result.report.groups}
    assert kept["attention.q:heads"] * kept["attention.q"] < kept["attention.q:heads"]
    assert kept["attention.q:heads"] >= 0.5


def test_the_costs_of_a_cut_attention_are_those_of_the_slim_network() -> None:
    for name in ATTENTIONS:
        result = cut(network_of(name))
        slim = read_network(result.model, [IMAGE])
        assert slim.cost.dense["flops"] == pytest.approx(result.report.cost.after.flops), name
        assert slim.cost.dense["params"] == result.report.cost.after.params


@pytest.mark.parametrize(
    ("equation", "ranks", "expected"),
    [
        ("ij,jk->ik", [2, 2], ([["i", "j"], ["j", "k"]], ["i", "k"])),
        ("b h i , b h j", [3, 3], ([["b", "h", "i"], ["b", "h", "j"]], ["i", "j"])),
        ("...i,...i->...", [3, 2], ([["0", "1", "i"], ["1", "i"]], ["0", "1"])),
    ],
)
def test_the_letters_of_an_einsum(equation: str, ranks: list[int], expected: tuple) -> None:
    assert einsum_letters(equation, ranks) == expected
