"""The oracle against networks with zeroed weights, and the correlations against known numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.errors import InputError
from prunecli.graph.coupling.groups import ChannelGroup
from prunecli.network.traced import read_network
from prunecli.signals.oracle import MEMORY, agreement, loss_changes, spearman
from tests.support.weights import randomize_


class Net(nn.Module):
    """A residual group, a depthwise layer, a grouped one, and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.second = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.depth = nn.Conv2d(4, 4, 3, groups=4, padding=1)
        self.wide, self.fc = nn.Conv2d(4, 5, 1), nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(self.stem(x)).relu()
        c = a + self.second(self.first(a).relu())
        d = functional.max_pool2d(self.depth(c).sigmoid(), 2)
        return self.fc(self.wide(d).relu().view(x.shape[0], -1))


class Windows(nn.Module):
    """Rows that are split into windows, and attention of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 8)
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).reshape(-1, 2, 8)  # [images * 3, 2, 8]
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.out(x).relu().reshape(-1, 6, 6).mean(1))


CASES = {"net": (Net, (2, 4, 4)), "windows": (Windows, (6, 3))}


@pytest.mark.parametrize("memory", [1, 4000, MEMORY])
@pytest.mark.parametrize("name", CASES)
def test_the_oracle_is_the_loss_of_the_network_with_every_reading_weight_zeroed(
    name: str, memory: int
) -> None:
    make, shape = CASES[name]
    model = randomize_(make(), seed=2).double().eval()
    network = read_network(model, [torch.zeros(1, *shape, dtype=torch.float64)])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, *shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (7,), generator=generator)
    batches = [(x[:4], labels[:4]), (x[4:], labels[4:])]
    found = loss_changes(
        network.trace, network.coupling, network.tensors, lambda: iter(batches), memory=memory
    )
    loss = functional.cross_entropy(model(x), labels)
    compared = 0
    for group in network.coupling.groups:
        if group.contracted:
            continue  # queries and keys have no reading weight: see below
        for atom in range(group.first, group.first + group.width):
            other = copy.deepcopy(model)
            for tensor, dim in group.consumers:
                weight = other.get_parameter(tensor)
                goes = (network.coupling.tensors[tensor][dim] == atom).any(0)
                weight.data.index_fill_(dim, torch.as_tensor(np.flatnonzero(goes)), 0.0)
            changed = functional.cross_entropy(other(x), labels) - loss
            assert found[atom] == pytest.approx(float(changed.detach()), abs=1e-10), group.name
            compared += 1
    assert compared >= 15
    assert np.isfinite(found).all()


def test_removing_a_column_of_queries_removes_its_products() -> None:
    model = randomize_(Windows(), seed=2).double().eval()
    network = read_network(model, [torch.zeros(1, 6, 3, dtype=torch.float64)])
    (group,) = [group for group in network.coupling.groups if group.contracted]
    x = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(5) % 3
    found = loss_changes(
        network.trace, network.coupling, network.tensors, lambda: iter([(x, labels)])
    )
    loss = functional.cross_entropy(model(x), labels)
    for atom in range(group.first, group.first + group.width):
        other = copy.deepcopy(model)
        goes = np.flatnonzero((network.coupling.tensors["q.weight"][0] == atom).any(0))
        other.q.weight.data[goes] = 0
        other.q.bias.data[goes] = 0
        changed = functional.cross_entropy(other(x), labels) - loss
        assert found[atom] == pytest.approx(float(changed.detach()), abs=1e-10)


def test_an_input_may_have_the_name_of_a_builtin() -> None:
    """torch.fx renames such an input; what is known of it by name must still be found."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1)
            self.head = nn.Linear(6 * 4, 3)

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            made = self.second(self.first(input).relu())
            return self.head(torch.cat([made, input], 1).flatten(1))

    model = randomize_(Named(), seed=1).eval()
    x, labels = torch.randn(3, 2, 2, 2), torch.tensor([0, 1, 2])
    network = read_network(model, [x[:1]])
    found = loss_changes(
        network.trace, network.coupling, network.tensors, lambda: iter([(x, labels)])
    )
    assert np.isfinite(found).all()
    result = prunecli.prune(model, x, flops=0.6, signal="obd", batches=lambda: [(x, labels)])
    assert result.report.cost.kept["flops"] <= 0.6


# --- correlations --------------------------------------------------------------------------------


def test_the_correlation_has_the_known_answer() -> None:
    oracle, criterion = np.array([0.1, 0.5, 0.3, 0.9, 0.2]), np.array([1.0, 4, 5, 6, 0])
    assert spearman(oracle, criterion) == pytest.approx(0.8)
    assert spearman(oracle, -criterion) == pytest.approx(-0.8)


def test_ties_share_their_rank_and_all_equal_values_have_no_correlation() -> None:
    assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(0.75**0.5)
    assert spearman(np.ones(3), np.arange(3.0)) is None


def group(first: int, width: int) -> ChannelGroup:
    return ChannelGroup(f"layer{first}", first, width, (), (), (), 1, exact=True)


def test_layerwise_norms_matter_only_for_the_pooled_correlation() -> None:
    groups = [group(0, 3), group(3, 3)]
    oracle = np.array([1.0, 2, 3, 4, 5, 6])
    # The signal ranks both layers rightly, but speaks louder in the first.
    saliency = np.array([1, 2, 3, 0.4, 0.5, 0.6]) * [100, 100, 100, 1, 1, 1]
    found = agreement(groups, saliency, oracle)
    assert found.per_layer == 1
    assert found.pooled == pytest.approx(spearman(np.array([4.0, 5, 6, 1, 2, 3]), oracle))
    assert found.pooled_l2 == pytest.approx(spearman(np.array([1.0, 3, 6, 2, 4, 5]), oracle))
    assert found.pooled < found.pooled_l2 < 1


def test_a_layer_that_a_signal_cannot_see_does_not_count() -> None:
    groups = [group(0, 3), group(3, 3)]
    saliency = np.array([1.0, 2, 3, np.nan, np.nan, np.nan])
    found = agreement(groups, saliency, np.array([1.0, 3, 2, 9, 9, 9]))
    assert found.per_layer == found.pooled == found.pooled_l2 == pytest.approx(0.5)
    assert agreement(groups, saliency * np.nan, saliency).pooled is None


# --- the verb ------------------------------------------------------------------------------------


def images() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 2, 4, 4, generator=generator), torch.arange(8) % 3)]


def test_analyze_compares_the_named_signals_with_the_oracle() -> None:
    model = randomize_(Net()).eval()
    example = torch.zeros(1, 2, 4, 4)
    names = ["l1", "activation/taylor/abs-sum/none", "taylor", "random"]
    found = prunecli.analyze(
        model, example, signals=names, oracle=True, batches=lambda: iter(images())
    ).oracle
    assert found is not None
    assert (found.images, found.channels) == (8, sum(map(len, found.loss_changes.values())))
    rows = {(row.signal, row.against): row for row in found.signals}
    assert set(rows) == {(name, kind) for name in names for kind in ("size", "change")}
    plain = rows[names[1], "size"]
    assert plain.per_layer is not None
    assert plain.pooled != plain.pooled_l2


def test_the_oracle_stands_beside_a_dozen_signals_where_none_are_named() -> None:
    found = prunecli.analyze(
        randomize_(Net()).eval(), torch.zeros(1, 2, 4, 4), oracle=True,
        batches=lambda: iter(images()),
    ).oracle  # fmt: skip
    assert found is not None
    assert len({row.signal for row in found.signals}) >= 12


def test_the_oracle_without_images_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        prunecli.analyze(randomize_(Net()).eval(), torch.zeros(1, 2, 4, 4), oracle=True)
    assert caught.value.code == "ORACLE_NEEDS_DATA"


def test_an_unknown_signal_beside_the_oracle_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="tailor"):
        prunecli.analyze(
            randomize_(Net()).eval(), torch.zeros(1, 2, 4, 4), oracle=True, signals=["tailor"]
        )
