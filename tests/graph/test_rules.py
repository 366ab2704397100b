"""Where channel ids go: one small network per kind of operator, the groups stated by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunecli.graph.coupling.groups import couple
from prunecli.graph.tracing.trace import trace


def groups_of(model: nn.Module, *shape: int):
    coupling = couple(trace(model, (torch.randn(2, *shape),)))
    return coupling, {group.name: group for group in coupling.groups}


def conv(inputs: int, outputs: int, size: int = 3, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **kwargs)


class Net(nn.Module):
    """A forward given as a function, over modules given by name."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self._function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self._function(self, x)


def head(self, x):
    return self.fc(x.mean((2, 3)))


def test_a_chain_has_one_group_per_layer_and_never_cuts_inputs_or_classes() -> None:
    model = nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 6), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip
    coupling, groups = groups_of(model, 3, 8, 8)
    assert {name: group.width for name, group in groups.items()} == {"0": 8, "3": 6}
    assert set(groups["0"].sites) == {
        ("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("1.running_mean", 0),
        ("1.running_var", 0), ("3.weight", 1),
    }  # fmt: skip
    assert [frozen.name for frozen in coupling.frozen] == ["6"]
    assert coupling.frozen[0].reason == "output of the model"


def test_a_sum_into_fixed_slots_ties_those_alone() -> None:
    slots = torch.tensor([1, 4, 6])
    model = Net(
        lambda self, x: head(self, self.a(x).index_add(1, slots, self.b(x))),
        a=conv(3, 8), b=conv(3, 3), fc=nn.Linear(8, 2),
    )  # fmt: skip
    coupling, groups = groups_of(model, 3, 8, 8)
    assert sorted(group.width for group in groups.values()) == [3, 5]
    (ours,), (theirs,) = (coupling.tensors[name][0] for name in ("a.weight", "b.weight"))
    assert ours[slots].tolist() == theirs.tolist()
    (tied,) = (group for group in groups.values() if group.width == 3)
    assert {("a.weight", 0), ("b.weight", 0), ("fc.weight", 1)} <= set(tied.sites)


def test_an_addition_ties_its_two_sides() -> None:
    model = Net(
        lambda self, x: head(self, self.a(x) + self.b(x)),
        a=conv(3, 8), b=conv(3, 8), fc=nn.Linear(8, 2),
    )  # fmt: skip
    _, groups = groups_of(model, 3, 8, 8)
    assert groups["a"].width == 8
    assert set(groups) == {"a"}
    assert set(groups["a"].producers) == {("a.weight", 0), ("b.weight", 0)}


def test_a_broadcast_of_one_channel_ties_nothing() -> None:
    model = Net(
        lambda self, x: head(self, self.a(x) * self.mask(x).sigmoid()),
        a=conv(3, 8), mask=conv(3, 1), fc=nn.Linear(8, 2),
    )  # fmt: skip
    _, groups = groups_of(model, 3, 8, 8)
    assert groups["a"].width == 8
    assert ("mask.weight", 0) not in groups["a"].sites


def test_a_concatenation_keeps_its_parts_apart_and_its_reader_sees_both() -> None:
    model = Net(
        lambda self, x: head(self, torch.cat([self.a(x), self.b(x)], 1)),
        a=conv(3, 4), b=conv(3, 6), fc=nn.Linear(10, 2),
    )  # fmt: skip
    coupling, groups = groups_of(model, 3, 8, 8)
    assert (groups["a"].width, groups["b"].width) == (4, 6)
    (atoms,) = coupling.tensors["fc.weight"][1]
    assert atoms.tolist() == list(range(10))


def test_a_tensor_joined_to_itself_is_cut_in_both_places() -> None:
    def forward(self, x):
        y = self.a(x)
        return head(self, torch.cat([y, y], 1))

    model = Net(forward, a=conv(3, 4), fc=nn.Linear(8, 2))
    coupling, groups = groups_of(model, 3, 8, 8)
    assert groups["a"].width == 4
    assert coupling.tensors["fc.weight"][1][0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_padded_channels_get_ids_of_their_own() -> None:
    model = Net(
        lambda self, x: head(self, functional.pad(self.a(x), (0, 0, 0, 0, 2, 2)) + self.b(x)),
        a=conv(3, 4), b=conv(3, 8), fc=nn.Linear(8, 2),
    )  # fmt: skip
    _, groups = groups_of(model, 3, 8, 8)
    assert groups["a"].width == 4
    assert set(groups["a"].producers) == {("a.weight", 0), ("b.weight", 0)}
    assert groups["b"].width == 4
    assert set(groups["b"].producers) == {("b.weight", 0)}


def test_flatten_repeats_an_id_for_every_position() -> None:
    model = nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
    coupling, _ = groups_of(model, 3, 3, 3)
    assert coupling.tensors["3.weight"][1][0].tolist() == [c for c in range(4) for _ in range(9)]


def test_a_depthwise_convolution_passes_channels_through() -> None:
    model = nn.Sequential(
        conv(3, 6), conv(6, 6, groups=6), conv(6, 4, 1), nn.Flatten(), nn.Linear(4 * 9, 2)
    )
    _, groups = groups_of(model, 3, 3, 3)
    assert groups["0"].width == 6
    assert ("1.weight", 0) in groups["0"].sites


def test_a_depthwise_convolution_with_multiplier_removes_all_copies() -> None:
    model = nn.Sequential(
        conv(3, 4), conv(4, 8, groups=4), conv(8, 4, 1), nn.Flatten(), nn.Linear(4 * 9, 2)
    )
    coupling, groups = groups_of(model, 3, 3, 3)
    assert groups["0"].width == 4
    assert coupling.tensors["1.weight"][0][0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_grouped_convolution_loses_whole_groups_where_there_are_many() -> None:
    model = nn.Sequential(
        conv(3, 16), conv(16, 16, groups=8), conv(16, 4, 1), nn.Flatten(), nn.Linear(4 * 9, 2)
    )
    coupling, groups = groups_of(model, 3, 3, 3)
    assert groups["0"].width == 8
    assert coupling.tensors["0.weight"][0][0].tolist() == [g for g in range(8) for _ in range(2)]
    assert coupling.tensors["2.weight"][1][0].tolist() == [g for g in range(8) for _ in range(2)]


def test_a_channel_shuffle_cuts_the_same_index_in_every_group() -> None:
    def forward(self, x):
        y = self.a(x)
        batch, channels, height, width = y.shape
        y = y.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(y.shape)
        return head(self, y)

    model = Net(forward, a=conv(3, 8), fc=nn.Linear(8, 2))
    coupling, groups = groups_of(model, 3, 4, 4)
    assert groups["a"].width == 4
    assert coupling.tensors["a.weight"][0][0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert coupling.tensors["fc.weight"][1][0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_split_and_concatenate_in_another_order_follow_every_channel() -> None:
    def forward(self, x):
        first, second = self.a(x).chunk(2, 1)
        return head(self, torch.cat([second, first], 1))

    coupling, _ = groups_of(Net(forward, a=conv(3, 6), fc=nn.Linear(6, 2)), 3, 4, 4)
    atoms = coupling.tensors["a.weight"][0][0].tolist()
    assert coupling.tensors["fc.weight"][1][0].tolist() == atoms[3:] + atoms[:3]


def test_a_layer_norm_over_channels_is_legal_but_marked_inexact() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 6), nn.Linear(6, 2))
    _, groups = groups_of(model, 4)
    assert not groups["0"].exact
    assert groups["2"].exact


def test_an_operator_without_a_rule_freezes_what_it_touches_and_says_where() -> None:
    model = Net(
        lambda self, x: head(self, self.b(torch.linalg.matrix_exp(self.a(x)))),
        a=conv(3, 8), b=conv(8, 6), fc=nn.Linear(6, 2),
    )  # fmt: skip
    coupling, groups = groups_of(model, 3, 4, 4)
    assert set(groups) == {"b"}
    (frozen,) = [item for item in coupling.frozen if item.name == "a"]
    assert frozen.reason == "no rule for operator linalg_matrix_exp"
    assert "test_rules.py:" in (frozen.where or "")
    assert coupling.unfollowed == {"no rule for operator linalg_matrix_exp": 1}


@pytest.mark.parametrize("operation", ["softmax", "amax"])
def test_channels_that_compete_are_frozen(operation: str) -> None:
    def forward(self, x):
        y = self.a(x)
        y = y.softmax(1) if operation == "softmax" else y * y.amax(1, keepdim=True)
        return head(self, y)

    coupling, groups = groups_of(Net(forward, a=conv(3, 8), fc=nn.Linear(8, 2)), 3, 4, 4)
    assert "a" not in groups
    assert operation in next(item.reason for item in coupling.frozen if item.name == "a")


def test_frozen_parameters_and_no_grad_change_nothing() -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = conv(3, 8), conv(8, 6), nn.Linear(6, 2)

        def forward(self, x):
            with torch.no_grad():
                x = self.a(x)
            return self.fc(self.b(x).mean((2, 3)))

    model = Backbone().requires_grad_(requires_grad=False)
    _, groups = groups_of(model, 3, 4, 4)
    assert {name: group.width for name, group in groups.items()} == {"a": 8, "b": 6}


def test_a_functional_weight_and_a_module_used_twice_are_followed() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))
            self.shared, self.fc = conv(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            x = functional.conv2d(x, self.weight, padding=1)
            return self.fc(self.shared(self.shared(x).relu()).mean((2, 3)))

    coupling, groups = groups_of(Twice(), 3, 4, 4)
    (group,) = groups.values()
    assert {("weight", 0), ("shared.weight", 0), ("shared.weight", 1)} <= set(group.sites)
    assert coupling.atom_count == 8


def test_a_layer_that_is_held_as_a_whole_is_named_with_the_line_that_holds_it() -> None:
    def forward(self, x):
        pairs = self.pairs(x).unflatten(1, (4, 2)).softmax(2).flatten(1)
        return self.fc(x + self.back(pairs))

    model = Net(forward, pairs=nn.Linear(8, 8), back=nn.Linear(8, 8), fc=nn.Linear(8, 2))
    coupling, groups = groups_of(model, 8)
    reasons = {frozen.name: frozen for frozen in coupling.frozen}
    assert "pairs" in groups
    assert reasons["back"].reason == "meets an input or positions, which stay"
    assert (reasons["back"].where or "").startswith(__file__)


def test_a_parameter_of_the_network_itself_is_named_where_it_is_frozen() -> None:
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(8, 6))

        def forward(self, x):
            return (x @ self.table).softmax(-1)

    coupling, _ = groups_of(Root(), 8)
    assert [frozen.name for frozen in coupling.frozen] == ["table"]
