"""Calls that a rule does not understand: their channels stay, and the reason names the line."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import prunecli
from prunecli.cost.flops import FLOP_RULES, Term
from prunecli.errors import GraphError
from prunecli.graph.coupling.groups import couple
from prunecli.graph.emitting.emit import emit
from prunecli.graph.emitting.rewrites import REWRITES
from prunecli.graph.rules import RULES
from prunecli.graph.tracing.trace import trace
from prunecli.network.traced import read_network
from prunecli.signals.places import readings
from tests.support.complaint_networks import Net, conv, fc
from tests.support.weights import randomize_

IMAGE = torch.zeros(1, 3, 8, 8)


def with_an_operation(operation, *, width: int = 8) -> nn.Module:
    """Return a network that does something odd to what one layer makes, beside three others."""

    def forward(net, x):
        x = net.free(net.stem(x).relu()).relu()
        return net.fc(net.last(operation(net.odd(x))).relu().mean((2, 3)))

    net = Net(
        forward, stem=conv(3, 8), free=conv(8, 8), odd=conv(8, 8), last=conv(width, 8), fc=fc(8)
    )
    return randomize_(net, seed=0).eval()


def gathered(x):
    """Gather fewer entries than there are on every other dimension, one rank down."""
    rows = x.flatten(1)
    return rows.gather(1, torch.zeros(1, 1, dtype=torch.int64)).reshape(-1, 1, 1, 1) + x


def first_of_ranks(x):
    """Attend from queries of one rank more than keys and values."""
    keys = x.flatten(2).mean(0, keepdim=True)[0]
    return functional.scaled_dot_product_attention(x.flatten(2)[:, None], keys, keys)[:, 0].view(
        -1, 8, 8, 8
    )


@pytest.mark.parametrize("operation", [gathered, first_of_ranks])
def test_an_odd_call_prunes_the_rest_of_the_network(operation) -> None:
    result = prunecli.prune(with_an_operation(operation), IMAGE, flops=0.7, align=1)
    assert result.report.verified.max_rel_error < 1e-8
    assert {"stem", "free"} <= {group.name for group in result.report.groups}


def one_dim_less(call):
    return call.axes("self")[1:]


def other_sizes(call):
    axes = call.axes("self")
    return (*axes[:1], axes[1][:3], *axes[2:])


def no_axes_at_all(_):
    return None


def fails(error):
    def rule(*_):
        raise error

    return rule


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (fails(IndexError("list index out of range")), "IndexError: list index out of range"),
        (fails(AssertionError()), "AssertionError"),
        (fails(KeyError("dim")), "KeyError: 'dim'"),
        (fails(ValueError("two\nlines")), "ValueError: two"),
        (fails(RecursionError("too deep")), "RecursionError: too deep"),
        (lambda call: call.ids.tie(call.axes("self")[1], call.ids.fresh(3)), "8 channels meet 3"),
        (other_sizes, "channels of [1, 3, 8, 8] for a tensor of [1, 8, 8, 8]"),
        (one_dim_less, "ValueError: zip()"),
        (no_axes_at_all, "other outputs"),
        (lambda call: [call.axes("self")], "other outputs"),
    ],
)
def test_a_rule_that_fails_freezes_what_the_call_reads(monkeypatch, rule, said: str) -> None:
    monkeypatch.setattr(RULES, "_entries", dict(RULES._entries))
    RULES.add("rot90", rule, summary="A rule of a plugin.")
    coupling = couple(trace(with_an_operation(lambda x: torch.rot90(x, 1, (2, 3))), (IMAGE,)))
    assert {group.name for group in coupling.groups} == {"stem", "free", "last"}
    (frozen,) = (item for item in coupling.frozen if item.name == "odd")
    assert frozen.reason.startswith("the rule for operator rot90 does not understand this call (")
    assert said in frozen.reason
    assert "test_odd_calls.py:" in (frozen.where or "")
    assert coupling.unfollowed == {frozen.reason: 1}


def test_a_report_says_which_rule_failed_and_that_the_cut_is_verified(monkeypatch) -> None:
    monkeypatch.setattr(RULES, "_entries", dict(RULES._entries))
    RULES.add("rot90", fails(IndexError("no such dim")), summary="A rule of a plugin.")
    model = with_an_operation(lambda x: torch.rot90(x, 1, (2, 3)))
    result = prunecli.prune(model, IMAGE, flops=0.7, align=1)
    assert result.report.verified.max_rel_error < 1e-8
    assert any("operator rot90" in warning and "(1 call)" in warning
               for warning in result.report.warnings)  # fmt: skip
    assert any("IndexError: no such dim" in item.reason for item in result.report.frozen)


def test_an_operator_of_another_library_is_not_taken_for_one_of_torch() -> None:
    @torch.library.custom_op("prunecli_tests::flip", mutates_args=())
    def flip(x: torch.Tensor, dims: int) -> torch.Tensor:
        return x.cumsum(dims)  # what its name does not say

    @flip.register_fake
    def _(x, dims):
        return torch.empty_like(x)

    model = with_an_operation(lambda x: flip(x, 1))
    result = prunecli.prune(model, IMAGE, flops=0.7, align=1)
    assert any("prunecli_tests::flip" in item.reason for item in result.report.frozen)
    assert "odd" not in {group.name for group in result.report.groups}


def keep_half(coupling):
    return torch.arange(coupling.atom_count).remainder(2).bool().numpy()


def test_a_rewrite_that_fails_names_the_operator_and_the_line(monkeypatch) -> None:
    monkeypatch.setitem(REWRITES, "roll", fails(IndexError("tuple index out of range")))
    traced = trace(with_an_operation(lambda x: x.roll(1, 1)), (IMAGE,))
    coupling = couple(traced)
    with pytest.raises(GraphError, match="operator roll") as caught:
        emit(traced, coupling, keep_half(coupling))
    assert caught.value.code == "NOT_WRITABLE"
    assert "IndexError: tuple index out of range" in caught.value.message
    assert "test_odd_calls.py:" in caught.value.where
    assert caught.value.hint


def test_a_rewrite_that_fails_does_not_matter_where_nothing_is_cut(monkeypatch) -> None:
    monkeypatch.setitem(REWRITES, "index_select", fails(ZeroDivisionError()))

    def forward(net, x):
        scale = net.scale.index_select(0, torch.tensor([0]))
        return net.fc((net.stem(x) * scale).relu().mean((2, 3)))

    net = Net(forward, stem=conv(3, 8), fc=fc(8))
    net.scale = nn.Parameter(torch.ones(1))
    traced = trace(net.eval(), (IMAGE,))
    coupling = couple(traced)
    assert emit(traced, coupling, keep_half(coupling))["nodes"]


def test_what_a_file_may_not_name_is_refused_with_its_line_when_it_is_written() -> None:
    model = with_an_operation(lambda x: x + torch.quantile(x.mean((1, 2, 3)), 0.5).detach())
    network = read_network(model, (IMAGE,))
    with pytest.raises(GraphError, match=r"may not name the operator aten\.quantile") as caught:
        network.graph_network(keep_half(network.coupling))
    assert "test_odd_calls.py:" in caught.value.where


@pytest.mark.parametrize(
    "rule", [fails(KeyError("dim")), lambda node, *_: [Term(node.name, 1.0, ((node.name, 7),))]]
)
def test_flops_that_cannot_be_told_are_listed_as_not_counted(monkeypatch, rule) -> None:
    monkeypatch.setattr(FLOP_RULES, "_entries", dict(FLOP_RULES._entries))
    FLOP_RULES.add("silu", rule, summary="A rule of a plugin.")
    cost = read_network(with_an_operation(functional.silu), (IMAGE,)).cost
    assert cost.not_counted["pointwise"] > 0
    assert cost.dense["flops"] > 0


def test_a_view_of_another_type_is_written_into_a_graph() -> None:
    def bits(x):
        whole = x.float().view(torch.int32)
        return torch.cat([x + (whole > 0), x[:, :8]], 1)

    result = prunecli.prune(with_an_operation(bits, width=16), IMAGE, flops=0.7, align=1)
    assert result.report.verified.max_rel_error < 1e-8


def test_stored_tensors_that_go_straight_into_a_dropout_or_a_norm_are_in_the_graph() -> None:
    def forward(net, x):
        place = net.drop(net.place) + net.norm(net.table)
        x = torch.cat([net.stem(x) + place[:, :, None, None], net.stem(x).roll(1, 1)], 1)
        return net.fc(net.last(x.relu()).mean((2, 3)))

    net = Net(
        forward, stem=conv(3, 8), last=conv(16, 8), drop=nn.Dropout(0.1), norm=nn.BatchNorm1d(8),
        fc=fc(8),
    )  # fmt: skip
    net.place = nn.Parameter(torch.randn(1, 8))
    net.table = nn.Parameter(torch.randn(1, 8))
    result = prunecli.prune(randomize_(net, seed=0).eval(), IMAGE, flops=0.7, align=1)
    assert result.report.mode == "graph"
    assert result.report.verified.max_rel_error < 1e-8


@pytest.mark.parametrize("equation", ["nchw,cd", "nchw,cd->dhnw", "n...hw,cd->cdhwn..."])
def test_an_einsum_reads_the_channels_of_letters_that_its_result_lacks(equation: str) -> None:
    """Without an arrow the result has all letters that occur once, in alphabetical order."""

    def forward(net, x):
        made = torch.einsum(equation, net.stem(x).relu(), net.mix)
        return net.fc(made.flatten(1).mean(1, keepdim=True))

    net = Net(forward, stem=conv(3, 8), fc=nn.Linear(1, 2))
    net.mix = nn.Parameter(torch.randn(8, 6))
    traced = trace(net.eval(), (IMAGE,))
    (product,) = (node for node in traced.graph.nodes if "einsum" in node.name)
    letters = equation.partition("->")[0].split(",")[0]
    result = equation.partition("->")[2] or "dhnw"
    lacking = [dim for dim, letter in enumerate(letters.replace("...", "C")) if letter not in
               result.replace("...", "C")]  # fmt: skip
    read = [dim for node, value, dim in readings(traced)
            if node is product and value.name == "relu"]  # fmt: skip
    assert read == lacking
