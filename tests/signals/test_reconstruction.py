"""Elimination with refits, and the signal made of it, against refits by numpy."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.errors import InputError
from prunecli.least_squares import elimination, equations
from prunecli.least_squares.elimination import Blocks, Elimination, Unrefitted, eliminate
from prunecli.least_squares.equations import (
    Draw,
    Waiting,
    add_rows_,
    rows_of_convolution,
    rows_of_product,
)
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.pruning.scoring import score_signals
from prunecli.signals import readers, reconstruction
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from collections.abc import Iterable

ROWS, OUT = 60, 4


@pytest.fixture(autouse=True)
def almost_no_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Elimination.__init__.__kwdefaults__, "ridge", 1e-12)


@pytest.fixture
def all_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equations, "FEWEST", 10_000)
    monkeypatch.setattr(readers, "FEWEST", 10_000)


# --- elimination ---------------------------------------------------------------------------------


class Problem:
    """Random rows with columns that say almost the same, weights, and a metric of outputs."""

    def __init__(self, columns: int, *, seed: int, intercept: bool = True) -> None:
        draw = np.random.default_rng(seed)
        mixed = np.eye(columns) + draw.normal(size=(columns, columns)) / 2
        self.rows = draw.normal(size=(ROWS, columns)) @ mixed + draw.normal(size=columns)
        self.weight = draw.normal(size=(columns, OUT))
        root = draw.normal(size=(OUT, OUT - 1))
        self.metric, self.intercept = root @ root.T, intercept

    def gram(self) -> Tensor:
        gram = torch.zeros(1, *(self.rows.shape[1] + self.intercept,) * 2, dtype=torch.float64)
        add_rows_(gram, torch.as_tensor(self.rows)[None])
        return gram

    def elimination(self) -> Elimination:
        weight, metric = (torch.as_tensor(part)[None] for part in (self.weight, self.metric))
        return Elimination(self.gram(), weight, metric)

    def error(self, gone: Iterable[int]) -> float:
        left = np.setdiff1d(np.arange(self.rows.shape[1]), list(gone))
        columns = self.rows[:, left]
        if self.intercept:
            columns = np.concatenate([columns, np.ones((ROWS, 1))], axis=1)
        wanted = self.rows @ self.weight
        missing = columns @ np.linalg.lstsq(columns, wanted, rcond=None)[0] - wanted
        return float(np.trace(self.metric @ missing.T @ missing))


def blocks_of(*blocks: list[int]) -> Blocks:
    size = max(map(len, blocks))
    padded = torch.tensor([block + [0] * (size - len(block)) for block in blocks])
    real = torch.tensor([[True] * len(block) + [False] * (size - len(block)) for block in blocks])
    count = len(blocks)
    return Blocks(count, torch.arange(count), torch.zeros(count, dtype=torch.int64), padded, real)


def greedy(errors_without) -> list[tuple[int, float]]:
    """Return (block, what it adds) in the order of the least error, each found by refitting all."""
    gone, before, found = [], 0.0, []
    while len(gone) < errors_without.count:
        trials = {
            block: errors_without([*gone, block])
            for block in range(errors_without.count)
            if block not in gone
        }
        best = min(trials, key=trials.get)
        found.append((best, trials[best] - before))
        gone, before = [*gone, best], trials[best]
    return found


def saliency_of(order: list[tuple[int, float]]) -> np.ndarray:
    """Return the greatest addition so far, by block."""
    found = np.zeros(len(order))
    for (block, _), value in zip(order, np.maximum.accumulate([e for _, e in order]), strict=True):
        found[block] = value
    return found


@pytest.mark.parametrize("intercept", [True, False])
def test_the_error_without_a_block_is_that_of_a_refit_without_it(intercept: bool) -> None:
    problem = Problem(9, seed=1, intercept=intercept)
    blocks = [[0, 1, 2], [3], [4, 5, 6, 7], [8, 2]]
    found = problem.elimination().errors(blocks_of(*blocks))
    assert found.numpy() == pytest.approx([problem.error(block) for block in blocks], rel=1e-6)


def test_errors_after_removals_are_those_of_refits_without_all_of_them() -> None:
    problem = Problem(10, seed=2)
    solved, blocks = problem.elimination(), blocks_of([0, 1], [1, 2, 3], [4], [6, 7, 8])
    solved.remove_(blocks.take(torch.tensor([0])))
    before = problem.error([0, 1])
    wanted = [problem.error({0, 1, *more}) - before for more in ([2, 3], [4], [6, 7, 8])]
    # Column 1 is in two blocks: it goes once.
    found = solved.errors(blocks.take(torch.tensor([1, 2, 3])))
    assert found.numpy() == pytest.approx(wanted, rel=1e-6)
    solved.remove_(blocks.take(torch.tensor([1, 2])))
    before = problem.error([0, 1, 2, 3, 4])
    wanted = problem.error([0, 1, 2, 3, 4, 6, 7, 8]) - before
    assert float(solved.errors(blocks.take(torch.tensor([3])))) == pytest.approx(wanted, rel=1e-6)


def test_blocks_go_in_the_order_of_the_least_error_over_all_problems() -> None:
    first, second = Problem(12, seed=3), Problem(8, seed=4, intercept=False)
    pairs = [[[2 * at, 2 * at + 1] for at in range(6)], [[at] for at in (7, 1, 2, 3, 4, 0)]]

    def error(gone: list[int]) -> float:
        return sum(
            problem.error({column for block in gone for column in blocks[block]})
            for problem, blocks in zip((first, second), pairs, strict=True)
        )

    error.count = 6
    problems = [(first.elimination(), blocks_of(*pairs[0]))]
    problems.append((second.elimination(), blocks_of(*pairs[1])))
    order = greedy(error)
    found = eliminate(problems).numpy()
    assert found == pytest.approx(saliency_of(order), rel=1e-5)
    assert np.argsort(found).tolist() == [block for block, _ in order]


def test_matrices_that_shrink_with_the_columns_change_no_number(monkeypatch) -> None:
    problem, size, shapes = Problem(40, seed=8), 4, []
    blocks = [list(range(size * at, size * at + size)) for at in range(10)]
    shrink = Elimination._shrink_

    def watched(self) -> None:
        shrink(self)
        shapes.append(self.inverse.shape[1])

    monkeypatch.setattr(Elimination, "_shrink_", watched)
    found = eliminate([(problem.elimination(), blocks_of(*blocks))])
    assert shapes[-1] < shapes[4] < shapes[0] == 41
    monkeypatch.setattr(elimination, "SHRINK", -1.0)
    whole = eliminate([(problem.elimination(), blocks_of(*blocks))])
    assert shapes[-1] == 41
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=0)

    def error(gone: list[int]) -> float:
        return problem.error([column for at in gone for column in blocks[at]])

    error.count = len(blocks)
    assert found.numpy() == pytest.approx(saliency_of(greedy(error)), rel=1e-5)


def test_groups_lose_blocks_of_their_own() -> None:
    """Blocks of a grouped layer: some in one group, one in both, of other sizes in each."""
    first, second = Problem(7, seed=9), Problem(7, seed=10)
    both = Elimination(
        torch.cat([first.gram(), second.gram()]),
        torch.as_tensor(np.stack([first.weight, second.weight])),
        torch.as_tensor(np.stack([first.metric, second.metric])),
    )
    entries = [(0, 0, [0, 1]), (1, 1, [2]), (2, 0, [3]), (2, 1, [0, 4]), (3, 1, [5, 6])]
    blocks = Blocks(
        count=4,
        block=torch.tensor([block for block, *_ in entries]),
        group=torch.tensor([group for _, group, _ in entries]),
        columns=torch.tensor([[*at, 0][:2] for *_, at in entries]),
        real=torch.tensor([[True, len(at) > 1] for *_, at in entries]),
    )

    def error(gone: list[int]) -> float:
        lost: list[list[int]] = [[], []]
        for block, group, at in entries:
            lost[group] += at if block in gone else []
        return first.error(lost[0]) + second.error(lost[1])

    error.count = 4
    found = eliminate([(both, blocks)]).numpy()
    assert found == pytest.approx(saliency_of(greedy(error)), rel=1e-5)


def test_of_many_blocks_some_go_in_one_step_and_all_get_an_own_number(monkeypatch) -> None:
    monkeypatch.setattr(elimination, "AT_ONCE", 3)
    problem = Problem(12, seed=5)
    found = eliminate([(problem.elimination(), blocks_of(*([at] for at in range(12))))])
    assert len(set(found.tolist())) == 12
    least = sorted(range(12), key=lambda at: problem.error([at]))[:4]
    assert np.argsort(found.numpy())[:4].tolist() == least


def test_columns_that_are_always_zero_go_first() -> None:
    problem = Problem(6, seed=6)
    problem.rows[:, [1, 4]] = 0
    found = eliminate([(problem.elimination(), blocks_of(*([at] for at in range(6))))])
    assert set(np.argsort(found.numpy())[:2].tolist()) == {1, 4}
    assert float(found[[1, 4]].max()) < 1e-9 < float(found[[0, 2, 3, 5]].min())


@pytest.mark.parametrize("targets", [3, 30])
def test_a_metric_of_many_outputs_is_kept_as_narrow_as_the_columns(targets: int) -> None:
    draw = np.random.default_rng(3)
    weight, root = draw.normal(size=(8, targets)), draw.normal(size=(targets, targets))
    problem = Problem(8, seed=11)
    problem.weight, problem.metric = weight, root @ root.T
    solved = problem.elimination()
    assert solved.weight.shape[2] <= min(8, targets)
    blocks = [[0], [3, 4], [7]]
    found = solved.errors(blocks_of(*blocks))
    assert found.numpy() == pytest.approx([problem.error(block) for block in blocks], rel=1e-6)


def test_what_is_not_refitted_is_missed_as_much_whatever_has_gone() -> None:
    left = Unrefitted(torch.tensor([[1.0, 2.0, 4.0, 8.0]], dtype=torch.float64))
    blocks = blocks_of([0, 2], [1], [3])
    left.remove_(blocks.take(torch.tensor([0])))
    assert left.errors(blocks).tolist() == [5, 2, 8]
    assert eliminate([(left, blocks)]).tolist() == pytest.approx([5, 2, 8])


# --- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [5, 150, 600])
def test_products_are_those_of_all_rows_however_they_are_tiled(size: int, kind) -> None:
    rows = torch.randn(2, 90, size, generator=torch.Generator().manual_seed(0)).to(kind)
    gram = torch.zeros(2, size + 1, size + 1, dtype=torch.float64)
    for part in rows.split(40, 1):
        add_rows_(gram, part)
    exact = torch.cat([rows.double(), torch.ones(2, 90, 1, dtype=torch.float64)], 2)
    # Of narrow layers, and of float64, nothing is rounded to float32.
    close = 1e-12 if kind == torch.float64 or size == 5 else 1e-5
    torch.testing.assert_close(gram, exact.mT @ exact, rtol=close, atol=90 * close)
    assert torch.equal(gram, gram.mT) or kind == torch.float32


def test_rows_wait_until_their_products_are_worth_a_pass_and_none_is_lost() -> None:
    taken = []
    waiting = Waiting(10, lambda *parts: taken.append([len(part[0]) for part in parts]))
    for count in (4, 5, 3, 20, 2):
        waiting.add(torch.zeros(1, count, 3), torch.zeros(1, count, 2))
    assert taken == [[12, 12], [20, 20]]
    waiting.empty()
    waiting.empty()
    assert taken[2:] == [[2, 2]]


def test_wide_layers_draw_fewer_rows_per_column_but_some() -> None:
    def rows(columns: int, images: int = 1000) -> int:
        return len(Draw(images).positions(100_000, columns=columns)) * images

    assert rows(27) == 16_000  # 16 positions, whatever is enough
    assert rows(400) == pytest.approx(128 * 400, rel=0.02)
    assert rows(1448) == pytest.approx(2**37 / 1448**2, rel=0.02)
    assert rows(8192) == pytest.approx(6 * 8192, rel=0.03)
    assert len(Draw(1000, enough=32).positions(100_000, columns=1000)) == 32


# --- rows ----------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "padded and strided": nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1)),
    "dilated": nn.Conv2d(4, 6, (3, 2), dilation=(1, 2), padding=1),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "a sequence": nn.Conv1d(4, 6, 3, stride=2, padding=1),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("images", [2, 10_000])
def test_rows_times_weights_are_the_outputs_at_the_positions_drawn(
    name: str, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equations, "FEWEST", 3)
    layer = CONVOLUTIONS[name].double()
    arguments = {key: getattr(layer, key) for key in ("stride", "padding", "dilation", "groups")}
    inputs = torch.randn(2, 4, *(9,) * (layer.weight.dim() - 2), dtype=torch.float64)
    with torch.no_grad():
        made = layer(inputs) - layer.bias.view(1, -1, *(1,) * (inputs.dim() - 2))
        found = list(rows_of_convolution(inputs, [made], layer.weight, arguments, Draw(images)))
        weight = layer.weight.reshape(layer.groups, 6 // layer.groups, -1).mT
        for columns, outputs in found:
            torch.testing.assert_close(columns @ weight, outputs)
    count = sum(columns.shape[1] for columns, _ in found)
    assert count == 2 * (made[0, 0].numel() if images == 2 else min(made[0, 0].numel(), 3))


def test_rows_of_tokens_are_drawn_too() -> None:
    layer, inputs = nn.Linear(4, 6, bias=False), torch.randn(3, 50, 4)
    made = layer(inputs)
    ((columns, outputs),) = rows_of_product(inputs, [made], layer.weight, {}, Draw(128))
    assert columns.shape == (1, 3 * 16, 4)
    torch.testing.assert_close(columns @ layer.weight.mT, outputs)


# --- the signal ----------------------------------------------------------------------------------


class Joined(nn.Module):
    """A residual stream, an inner width, a concatenation and a classifier, all small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.norm1 = nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.second, self.norm2 = nn.Conv2d(5, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.side = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(7, 6, 3, stride=2, bias=False)
        self.head = nn.Linear(6 * 4, 5)

    def readers(self, image: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return inputs and outputs of every layer that reads channels."""
        stem = self.norm(self.stem(image)).relu()
        first = self.first(stem)
        inner = self.norm1(first).relu()
        second = self.second(inner)
        stream = (self.norm2(second) + stem).relu()
        both = torch.cat([stream, self.side(image).relu()], 1)
        last = self.last(both)
        flat = last.relu().flatten(1)
        return {
            "first": (stem, first),
            "second": (inner, second),
            "last": (both, last),
            "head": (flat, self.head(flat)),
        }

    def forward(self, image: Tensor) -> Tensor:
        return self.readers(image)["head"][1]


CHANNELS = {
    "stem": {"first": [[c] for c in range(4)], "last": [[c] for c in range(4)]},
    "first": {"second": [[c] for c in range(5)]},
    "side": {"last": [[4 + c] for c in range(3)]},
    "last": {"head": [list(range(4 * c, 4 * c + 4)) for c in range(6)]},
}
"""Which input channels of which reader an atom is, by group."""


def joined() -> Joined:
    return randomize_(Joined(), seed=4).double().eval()


def pictures(count: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 6, 6, generator=generator, dtype=torch.float64)


def scored(model: nn.Module, *batches: Tensor) -> dict[str, np.ndarray]:
    example = batches[0][:1]
    network = read_network(model, [example])
    found = score_signals(
        network,
        ["reconstruction"],
        PruneOptions(),
        batches=lambda: (
            (images, torch.zeros(len(images), dtype=torch.long)) for images in batches
        ),
    )["reconstruction"]
    return {group.name: found[group.atoms] for group in network.coupling.groups}


def refitted(model: Joined, images: Tensor, group: str) -> list[tuple[int, float]]:
    """Return the order of a group's channels and what each adds, by refits of its readers."""
    values = model.readers(images)
    logits = values["head"][1]
    mixture = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).double()
    mixture -= mixture.mean(1, keepdim=True)
    outputs = [made for _, made in values.values()]
    gradients = torch.autograd.grad((logits * mixture).sum(), outputs)
    facts = {}
    for (name, (inputs, made)), gradient in zip(values.items(), gradients, strict=True):
        layer = getattr(model, name)
        columns, kernel = inputs.detach().numpy(), 1
        rows, wanted, pull = (part.detach().numpy() for part in (inputs, made, gradient))
        if isinstance(layer, nn.Conv2d):
            unfolded = functional.unfold(
                inputs.detach(), layer.kernel_size, padding=layer.padding, stride=layer.stride
            )
            kernel = layer.weight[0, 0].numel()
            rows = unfolded.movedim(1, 2).flatten(0, 1).numpy()
            wanted, pull = (np.moveaxis(p, 1, -1).reshape(-1, p.shape[1]) for p in (wanted, pull))
        if name != "last":  # neither a bias nor a norm behind it
            rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
        facts[name] = rows, wanted, pull.T @ pull / len(pull), columns.shape[1], kernel

    def error(gone: list[int]) -> float:
        total = 0.0
        for name, channels in CHANNELS[group].items():
            rows, wanted, metric, _, kernel = facts[name]
            lost = [c * kernel + tap for at in gone for c in channels[at] for tap in range(kernel)]
            left = np.delete(rows, lost, axis=1)
            missing = left @ np.linalg.lstsq(left, wanted, rcond=None)[0] - wanted
            total += np.trace(metric @ missing.T @ missing) / len(rows)
        return total

    error.count = len(next(iter(CHANNELS[group].values())))
    return greedy(error)


@pytest.mark.usefixtures("all_positions")
@pytest.mark.parametrize("group", CHANNELS)
def test_the_signal_is_what_refits_of_all_readers_miss(group: str) -> None:
    model, images = joined(), pictures()
    order = refitted(model, images, group)
    found = scored(model, images)[group]
    assert found == pytest.approx(saliency_of(order), rel=1e-4)
    assert np.argsort(found).tolist() == [channel for channel, _ in order]


def test_the_sums_over_batches_are_those_of_all_images() -> None:
    # The mixtures of logits are drawn batch by batch; what is read is summed as it comes.
    model, images = joined(), pictures()
    whole, twice = scored(model, images), scored(model, images)
    parts = scored(model, *images.split(16))
    for name, values in whole.items():
        assert values.tolist() == twice[name].tolist()
        assert np.corrcoef(values, parts[name])[0, 1] > 0.8


def test_more_images_take_no_more_memory() -> None:
    model, alive = joined(), []

    class Watched(list):
        def __iter__(self):
            for images in super().__iter__():
                yield images
                alive.append(sum(issubclass(type(item), Tensor) for item in gc.get_objects()))

    network = read_network(model, [pictures(1)])
    labels = torch.zeros(8, dtype=torch.long)
    batches = Watched((pictures(8, seed), labels) for seed in range(6))
    gc.collect()
    gc.disable()
    try:
        score_signals(network, ["reconstruction"], PruneOptions(), batches=lambda: batches)
    finally:
        gc.enable()
    passed = alive[6:]
    assert passed[1] >= passed[-1] > 0


def test_a_grouped_convolution_loses_the_same_channel_in_every_group() -> None:
    model = randomize_(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(24, 4),
        ), seed=2,
    ).double().eval()  # fmt: skip
    found = scored(model, pictures())
    assert all(np.isfinite(values).all() and (values > 0).all() for values in found.values())
    assert {name: len(values) for name, values in found.items()} == {"0": 4, "2": 3}


def test_a_layer_that_is_too_wide_is_scored_by_squares_and_said_so(monkeypatch) -> None:
    model, images = joined(), pictures()
    whole = scored(model, images)
    monkeypatch.setattr(readers, "WIDEST", 23)
    monkeypatch.setattr(reconstruction, "WIDEST", 23)
    found = scored(model, images)
    # The classifier reads 24 numbers, the first convolution 36, the last one 63.
    values = model.readers(images)
    flat, logits = values["head"]
    mixture = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).double()
    mixture -= mixture.mean(1, keepdim=True)
    costs = flat.square().mean(0) * (
        model.head.weight.square() * mixture.square().mean(0)[:, None]
    ).sum(0)
    assert found["last"] == pytest.approx(costs.reshape(6, 4).sum(1).tolist(), rel=1e-6)
    assert found["first"].tolist() == whole["first"].tolist()
    (said,) = reconstruction.fallbacks(read_network(model, [images[:1]]), 40)
    assert said.startswith("3 layers read more than 23 numbers (last.weight: 63)")


def test_of_a_large_network_fewer_images_are_looked_at_and_the_report_says_so(monkeypatch) -> None:
    model, images = joined(), pictures(64)
    # 36 * (5 * 4 * 9 + 5 * 4) + 4 * 6 * 7 * 9 + 5 * 24 multiply-adds of what reads channels.
    work = 36 * (180 + 20) + 4 * 378 + 120
    monkeypatch.setattr(reconstruction, "PASSES", 32 * work)
    monkeypatch.setattr(reconstruction, "BACKWARD", 16 * work)
    seen = []
    run = reconstruction._Gatherer.run

    def watched(self, inputs):
        seen.append((len(inputs), torch.is_grad_enabled()))
        return run(self, inputs)

    monkeypatch.setattr(reconstruction._Gatherer, "run", watched)
    batches = [(part, torch.zeros(len(part), dtype=torch.long)) for part in images.split(20)]
    result = prunecli.prune(
        model, images[:1], sparsity=0.4, align=1, signal="reconstruction", batches=lambda: batches
    )
    assert sum(count for count, _ in seen) == 32
    assert sum(count for count, derived in seen if derived) == 16
    assert len(seen) == 8
    (said,) = result.report.warnings
    assert "looked at 32 of 64 images, and took derivatives of 16" in said


def test_scores_of_half_of_the_images_are_near_those_of_all(monkeypatch) -> None:
    model, images = joined(), pictures(400)
    whole = scored(model, images)
    monkeypatch.setattr(reconstruction, "PASSES", 200 * 8832)
    monkeypatch.setattr(reconstruction, "BACKWARD", 200 * 8832)
    for name, values in scored(model, images).items():
        assert values == pytest.approx(whole[name], rel=0.35)


def test_a_layer_that_is_too_wide_is_left_by_least_squares(monkeypatch) -> None:
    monkeypatch.setattr("prunecli.repair.layers.WIDEST", 12)
    batches = [(pictures(), torch.zeros(40, dtype=torch.long))]
    result = prunecli.prune(
        joined(), pictures(1), sparsity=0.4, align=1, repair=("lstsq",), batches=lambda: batches
    )
    assert result.report.repair is not None
    (reason,) = result.report.repair.steps[-1].skipped
    assert "reads more than 12 numbers" in reason


def test_images_are_asked_for_before_any_work() -> None:
    with pytest.raises(InputError, match="looks at images"):
        prunecli.prune(joined(), pictures(1), flops=0.5, signal="reconstruction")
    with pytest.raises(InputError, match="looks at images"):
        prunecli.prune(
            joined(), pictures(1), flops=0.5, signal="reconstruction", batches=lambda: iter(())
        )


def test_a_cut_by_reconstruction_is_nearer_after_the_refit_than_one_at_random() -> None:
    model, images = joined(), pictures(200)
    batches = [(images, torch.zeros(200, dtype=torch.long))]

    def distance(signal: str, seed: int = 0) -> float:
        result = prunecli.prune(
            model, images[:1], sparsity=0.3, align=1, signal=signal, seed=seed, repair=("lstsq",),
            batches=lambda: batches,
        )  # fmt: skip
        with torch.no_grad():
            return float((result.model(images) - model(images)).square().mean())

    assert equations.RIDGE == 1e-3
    at_random = [distance("random", seed) for seed in range(3)]
    assert distance("reconstruction") < min(at_random)
