"""Budgets in milliseconds: tables with made-up times, and one that is really measured."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli.allocation import ALLOCATIONS, Problem, allocate, allowed_widths, ceilings_of
from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.architectures.examples import example_tensors
from prunecli.artefacts.instantiate import instantiate
from prunecli.budget import make_budget
from prunecli.checkpoint import load
from prunecli.cost.latency import Grid, LatencyTable, Machine, bind, operators_of, parse_table
from prunecli.cost.latency.table import monotone
from prunecli.errors import GateError, InputError, PruneError
from prunecli.exporting.timing import latency_table, operators
from prunecli.files import limited
from prunecli.network.traced import Network, read_network
from prunecli.options import LatencyOptions, PruneOptions
from prunecli.pruning.road import prune_network
from prunecli.pruning.scoring import score_network
from prunecli.pruning.selection import weight_shapes
from prunecli.pruning.timed import _missed, check_latency, judged
from prunecli.report import BenchmarkRow, LatencyReport
from prunecli_cli.main import main
from tests.support.fake_verbs import FakeVerbs, latency_report
from tests.support.structured_networks import Several
from tests.support.weights import randomize_

MACHINE = Machine("a processor", "CPUExecutionProvider", 1, 1, "1.20")


def chain(first: int = 32, second: int = 64) -> nn.Module:
    return randomize_(
        nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1), nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 10),
        )
    ).eval()  # fmt: skip


IMAGE = torch.zeros(2, 3, 8, 8)


def read(model: nn.Module, example: Tensor = IMAGE) -> Network:
    return read_network(model.eval(), [example])


def made_up(network: Network, time, *, rest: float = 0.0) -> LatencyTable:
    """Return a table with `time(shape, inputs, outputs)` milliseconds for every operator."""
    grids: dict[str, tuple[Grid, ...]] = {}
    alone = 0.0
    for item in operators_of(network.trace, network.coupling):
        ms = tuple(tuple(time(item.shape, i, o) for o in item.outputs) for i in item.inputs)
        grid = Grid(item.inputs, item.outputs, item.steps, ms)
        grids[item.shape.key] = (*grids.get(item.shape.key, ()), grid)
        alone += ms[-1][-1]
    dense = network.cost.dense["activations"]
    return LatencyTable(network.coupling.fingerprint, MACHINE, alone + rest, alone, dense, grids)


def timed(network: Network, table: LatencyTable) -> Network:
    return dataclasses.replace(network, latency=bind(table, network.trace, network.coupling))


def multiply_adds(shape, inputs: int, outputs: int) -> float:
    positions = math.prod(-(-size // step) for size, step in zip(shape.size, shape.stride,
                                                                 strict=True))  # fmt: skip
    per_output = inputs // shape.groups if shape.groups else 1
    return shape.rows * positions * per_output * outputs * math.prod(shape.kernel) * 1e-6


# --- grids ---------------------------------------------------------------------------------------

GRID = Grid((16, 32, 64), (8, 64), (16, 8), ((1.0, 8.0), (2.0, 16.0), (5.0, 40.0)))


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        (16, 8, 1.0), (32, 64, 16.0), (64, 64, 40.0),
        (48, 8, 3.5),  # half-way between 32 and 64
        (16, 36, 1 + 7 * (40 - 8) / 56),  # rounded up to 40
        (33, 8, 3.5), (17, 8, 2.0),  # a block that is begun costs a whole one
        (1, 1, 1.0), (64, 80, 40.0), (0, 8, 0.0), (16, 0, 0.0),
    ],
)  # fmt: skip
def test_a_time_is_looked_up_between_the_widths_measured(inputs, outputs, expected) -> None:
    assert GRID.at(inputs, outputs) == pytest.approx(expected)


def test_an_operator_with_fixed_inputs_is_looked_up_by_its_outputs_alone() -> None:
    grid = Grid((3,), (16, 32), (4, 16), ((1.0, 2.0),))
    assert [grid.at(3, 16), grid.at(3, 24), grid.at(3, 32)] == [1.0, 2.0, 2.0]


def test_no_time_exceeds_that_of_a_wider_operator() -> None:
    noisy = [[9.0, 2.0, 3.0], [2.0, 8.0, 4.0], [3.0, 4.0, 5.0]]
    assert monotone(noisy) == ((2.0, 2.0, 3.0), (2.0, 4.0, 4.0), (3.0, 4.0, 5.0))


# --- the operators of a network ------------------------------------------------------------------


class Kinds(nn.Module):
    """Every kind of operator that is measured, each reached by channels that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(32, 32, 3, padding="same", dilation=2, groups=32)
        self.grouped = nn.Conv2d(32, 64, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(64, 16, 3, stride=2, padding=1, output_padding=1)
        self.line = nn.Conv1d(16, 24, 5)
        self.tokens, self.head = nn.Linear(24, 40), nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.depth(self.first(x).relu()).relu()).relu()
        x = self.line(self.up(x).relu().flatten(2)).relu()
        return self.head(self.tokens(x.transpose(1, 2)).relu().mean(1))


def test_operators_are_described_by_all_that_their_time_depends_on() -> None:
    network = read(randomize_(Kinds()))
    first, depth, grouped, up, line, tokens, head = operators_of(network.trace, network.coupling)
    assert (first.inputs, first.outputs) == ((3,), (16, 32))
    assert first.shape.key == ("Conv kernel 3x3 stride 2x2 pads 1x1x1x1 dilation 1x1 input 8x8 "
                               "groups 1 rows 1")  # fmt: skip
    assert (depth.inputs, depth.outputs, depth.shape.groups) == ((32,), (16, 32), 0)
    assert depth.shape.pads == (2, 2, 2, 2)
    assert (grouped.inputs, grouped.outputs, grouped.shape.groups) == (
        (16, 32),
        (16, 32, 48, 64),
        4,
    )
    assert (up.inputs, up.outputs, up.shape.more) == ((16, 32, 48, 64), (8, 16), (1, 1))
    assert (line.shape.size, line.shape.kernel) == ((64,), (5,))
    assert (tokens.shape.key, tokens.inputs) == ("Gemm rows 60", (8, 16, 24))
    assert (head.outputs, head.shape.rows) == ((10,), 1)


def positions(shape) -> int:
    """Return at how many places the kernel is applied, counted from the shape alone."""
    if shape.kind != "Conv":
        return math.prod(shape.size)
    sides = len(shape.size)
    return math.prod(
        (shape.size[at] + shape.pads[at] + shape.pads[at + sides]
         - shape.dilation[at] * (shape.kernel[at] - 1) - 1) // shape.stride[at] + 1
        for at in range(sides)
    )  # fmt: skip


def test_operators_have_the_multiply_adds_that_the_cost_model_counts() -> None:
    network = read(randomize_(Kinds()))
    cost = network.cost
    at = cost.kinds["flops"]
    counted = dict.fromkeys(cost.nodes[at], 0.0)
    for node, value in zip(cost.nodes[at], cost.terms(cost.dense_widths)[at], strict=True):
        counted[node] += value
    for item in operators_of(network.trace, network.coupling):
        shape, groups = item.shape, item.shape.groups or item.inputs[-1]
        each = math.prod(shape.kernel) * item.inputs[-1] // groups * item.outputs[-1]
        assert counted[item.node] == shape.rows * positions(shape) * each, item.node


def test_a_single_operator_computes_what_its_layer_does_at_every_width() -> None:
    network = read(randomize_(Kinds()))
    made = {node.name: tuple(node.meta["val"].shape[1:]) for node in network.trace.graph.nodes
            if isinstance(node.meta.get("val"), Tensor)}  # fmt: skip
    for item in operators_of(network.trace, network.coupling):
        for pair in itertools.product(item.inputs, item.outputs):
            proto = operators._proto(item.shape, *pair)
            session = ort.InferenceSession(proto.SerializeToString(),
                                           providers=["CPUExecutionProvider"])  # fmt: skip
            shape = operators._input_shape(item.shape, pair, 2)
            (found,) = session.run(None, {"x": np.ones(shape, np.float32)})
            assert np.isfinite(found).all()
            assert found.shape[:2] == (2 * item.shape.rows, pair[1])
            if item.shape.kind != "Gemm":
                assert found.shape[2:] == made[item.node][1:]


def test_operators_too_large_to_be_held_together_are_measured_in_parts(monkeypatch) -> None:
    network = read(chain())
    second = operators_of(network.trace, network.coupling)[1]
    pairs = list(itertools.product(second.inputs, second.outputs))
    assert list(operators._parts(second.shape, pairs, 1)) == [pairs]
    monkeypatch.setattr(operators, "HELD", 20_000)
    parts = list(operators._parts(second.shape, pairs, 1))
    assert len(parts) > 3
    assert [pair for part in parts for pair in part] == pairs
    grid = operators.measure_grid(
        second.shape, second.inputs, second.outputs, steps=second.steps, batch=2, threads=1,
        seconds=0.05,
    )  # fmt: skip
    assert grid.inputs == second.inputs
    assert (np.asarray(grid.ms) > 0).all()
    assert np.asarray(grid.ms).shape == (2, 4)


def test_channels_of_the_input_and_the_output_are_measured_at_one_width() -> None:
    network = read(chain())
    first, second, head = operators_of(network.trace, network.coupling)
    assert (first.inputs, head.outputs) == ((3,), (10,))
    assert second.inputs == (16, 32)
    assert second.outputs == (16, 32, 48, 64)


# --- predictions ---------------------------------------------------------------------------------


def test_times_that_are_multiply_adds_predict_multiply_adds() -> None:
    network = read(chain())
    model = timed(network, made_up(network, multiply_adds))
    for widths in ([32, 64], [16, 64], [16, 32], [16, 48]):
        first, second = widths
        by_hand = 64 * 27 * first + 16 * 9 * first * second + second * 10
        assert model.cost.cost(np.asarray(widths))["latency"] == pytest.approx(by_hand * 1e-6)


def test_the_rest_of_a_network_shrinks_as_its_activations_do() -> None:
    network = read(chain())
    model = timed(network, made_up(network, lambda *_: 1.0, rest=6.0))
    assert model.cost.dense["latency"] == pytest.approx(3 + 6)
    activations = (64 * 16 + 16 * 32 + 10) / (64 * 32 + 16 * 64 + 10)
    found = model.cost.cost(np.asarray([16, 32]))["latency"]
    assert found == pytest.approx(3 + 6 * activations)


def test_of_a_predicted_saving_that_part_is_predicted_which_a_trial_really_saved() -> None:
    network = read(chain())
    table = dataclasses.replace(made_up(network, multiply_adds, rest=1000.0), gain=0.8)
    plain = timed(network, dataclasses.replace(table, gain=1.0)).cost
    less = timed(network, table).cost
    widths, dense = np.asarray([16, 32]), plain.dense["latency"]
    saved = dense - plain.cost(widths)["latency"]
    assert less.cost(widths)["latency"] == pytest.approx(dense - 0.8 * saved)
    assert less.dense["latency"] == pytest.approx(dense)
    assert less.gradient("latency", widths) == pytest.approx(
        0.8 * plain.gradient("latency", widths)
    )


def test_operators_that_take_longer_alone_are_scaled_to_the_network_that_was_measured() -> None:
    network = read(chain())
    table = dataclasses.replace(made_up(network, lambda *_: 2.0), dense_ms=3.0)
    assert (table.rest, table.scale) == (0.0, 0.5)
    assert timed(network, table).cost.dense["latency"] == pytest.approx(3.0)


def test_the_latency_of_a_channel_is_that_of_a_block_over_its_width() -> None:
    network = read(chain())
    model = timed(network, made_up(network, multiply_adds, rest=0.5))
    dense = np.asarray([32, 64])
    for at, step in ((0, 16), (1, 16)):
        less = dense.copy()
        less[at] -= step
        costs = [model.cost.cost(widths)["latency"] for widths in (dense, less)]
        gradient = model.cost.gradient("latency", dense)
        assert gradient[at] == pytest.approx((costs[0] - costs[1]) / step)
    assert np.isfinite(model.cost.gradient("latency", np.asarray([0, 8]))).all()


def test_a_network_that_was_cut_is_predicted_from_the_table_of_the_dense_one() -> None:
    network = read(chain())
    table = made_up(network, multiply_adds, rest=0.1)
    slim = timed(read(chain(16, 48)), table).cost.dense["latency"]
    assert slim == pytest.approx(timed(network, table).cost.cost(np.asarray([16, 48]))["latency"])


def test_the_table_of_another_network_is_refused() -> None:
    other = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4))
    network, wider = read(randomize_(other)), read(chain(48, 64))
    for stranger in (network, wider):
        with pytest.raises(InputError, match="lacks an operator") as caught:
            timed(stranger, made_up(read(chain()), multiply_adds))
        assert caught.value.code == "TABLE_OF_ANOTHER_NETWORK"


# --- budgets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [("0.7", "latency <= 0.7"), ("70%", "latency <= 0.7"), ("5ms", "latency <= 5 ms"),
     ("800us", "latency <= 0.8 ms"), ("1.5 s", "latency <= 1.5e+03 ms")],
)  # fmt: skip
def test_a_latency_is_a_share_or_a_time(text: str, said: str) -> None:
    assert str(make_budget(latency=text)) == said


@pytest.mark.parametrize("text", ["5", "5M", "4MB", "0ms", "-1ms", "1.0", "fast", "5 minutes", ""])
def test_a_latency_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        make_budget(latency=text)
    assert caught.value.code == "BAD_BUDGET"
    assert "5ms" in caught.value.hint


@pytest.mark.parametrize("allocation", ALLOCATIONS.names())
def test_every_rule_keeps_a_latency_that_does_not_fall_with_the_width(allocation: str) -> None:
    network = read(chain())
    generator, kept = np.random.default_rng(0), 0
    for _ in range(20):
        table = made_up(network, lambda *_: float(generator.uniform(0.1, 3.0)), rest=1.0)
        cost = timed(network, table).cost
        groups = network.coupling.groups
        widths = allowed_widths(groups, eligible=lambda _: True, align=4, min_width=1)
        saliency = generator.uniform(0, 1, network.coupling.atom_count)
        ceilings = ceilings_of(make_budget(latency=0.8, params=0.9), cost.dense)
        importance = generator.uniform(0.1, 1, len(groups))
        shapes = weight_shapes(network)
        problem = Problem(groups, saliency, cost, ceilings, widths, shapes, importance)
        if problem.load(problem.smallest) > 1:
            with pytest.raises(GateError, match="the lowest reachable"):
                allocate(allocation, problem)
            continue
        try:
            found, kept = allocate(allocation, problem), kept + 1
        except GateError as error:
            if "first layer whole" not in error.message:
                raise
            continue
        assert problem.load(found) <= 1
        assert (found > 0).all()
    assert kept >= 3


def test_a_latency_budget_is_kept_and_the_plan_says_so() -> None:
    model = chain()
    network = read(model)
    table = made_up(network, multiply_adds, rest=0.01)
    result = prune_network(timed(network, table), budget=make_budget(latency=0.5))
    cost = result.report.cost
    assert 0 < cost.kept["latency"] <= 0.5
    assert cost.after.latency == pytest.approx(cost.kept["latency"] * table.dense_ms)
    assert result.plan.budget == {"latency": {"fraction": 0.5}}
    assert result.report.verified.max_rel_error < 1e-6


def test_a_latency_out_of_reach_says_the_lowest_in_reach() -> None:
    network = read(chain())
    table = made_up(network, lambda *_: 1.0, rest=0.1)
    with pytest.raises(GateError, match=r"the lowest reachable is 0\.9") as caught:
        prune_network(timed(network, table), budget=make_budget(latency="1ms"))
    assert "--latency 0.9" in caught.value.hint


def test_a_latency_that_is_kept_already_is_said_with_its_unit() -> None:
    network = read(chain())
    with pytest.raises(InputError, match=r"3 ms latency, already within 50 ms"):
        prune_network(
            timed(network, made_up(network, lambda *_: 1.0)), budget=make_budget(latency="50ms")
        )


def test_a_latency_budget_without_a_table_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        prune_network(read(chain()), budget=make_budget(latency=0.5))
    assert caught.value.code == "NO_LATENCY_TABLE"


def test_signals_are_scaled_by_the_milliseconds_of_a_channel() -> None:
    network = read(chain())
    model = timed(network, made_up(network, multiply_adds, rest=0.2))
    plain, scaled = (
        score_network(model, PruneOptions(signal=f"weight/value/l1/{scaling}", aggregate="first"))
        for scaling in ("none", "latency-removed")
    )
    removed = model.cost.gradient("latency", model.cost.dense_widths)
    per_atom = np.repeat(removed, [group.width for group in network.coupling.groups])
    assert scaled == pytest.approx(plain / per_atom)


def test_a_signal_of_milliseconds_without_a_table_says_what_to_add() -> None:
    with pytest.raises(InputError, match="no latency table") as caught:
        score_network(read(chain()), PruneOptions(signal="weight/value/l1/latency-removed"))
    assert "--latency-table" in caught.value.hint


# --- tables on disk ------------------------------------------------------------------------------


def test_a_table_survives_the_way_through_a_file(tmp_path) -> None:
    table = made_up(read(chain()), multiply_adds, rest=0.3)
    latency_table.write_table(table, tmp_path / "t.json")
    assert latency_table.read_table(tmp_path / "t.json") == table


def spoilt():
    """Yield changes to a table that no reader may believe."""
    yield "another kind", lambda data: data.update(kind="shopping list")
    yield "another version", lambda data: data.update(schema=99)
    yield "no operators", lambda data: data.pop("operators")
    yield "a list of operators", lambda data: data.update(operators=[])
    yield "no time at all", lambda data: data.update(dense_ms=0)
    yield "an endless time", lambda data: data.update(dense_ms=float("inf"))
    yield "no number", lambda data: data.update(operators_ms="3")
    yield "a truth", lambda data: data.update(activations=True)
    yield "threads without count", lambda data: data["machine"].update(threads=0.5)

    def grid(data):
        return next(iter(data["operators"].values()))[0]

    yield "a time that is not there", lambda data: grid(data)["ms"].pop()
    yield "a time below zero", lambda data: grid(data)["ms"][0].__setitem__(0, -1.0)
    yield "not a number", lambda data: grid(data)["ms"][0].__setitem__(0, float("nan"))
    yield "widths that fall", lambda data: grid(data)["outputs"].reverse()
    yield "an endless width", lambda data: grid(data)["outputs"].__setitem__(-1, 10**12)
    yield "no steps", lambda data: grid(data).update(steps=[0, 1])
    yield "no widths", lambda data: grid(data).update(inputs=[], ms=[])


@pytest.mark.parametrize(("name", "spoil"), list(spoilt()))
def test_a_table_that_cannot_be_is_refused(name: str, spoil) -> None:
    data = json.loads(json.dumps(made_up(read(chain()), multiply_adds).to_json()))
    spoil(data)
    with pytest.raises(PruneError) as caught:
        parse_table(data, where="t.json")
    assert caught.value.code == "BAD_LATENCY_TABLE", name
    assert caught.value.where == "t.json"


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"null", b"[]", b'"table"', b"{" * 10]
)
def test_a_file_that_is_no_table_is_refused(content: bytes, tmp_path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(PruneError) as caught:
        latency_table.read_table(path)
    assert caught.value.code == "BAD_LATENCY_TABLE"


def test_a_folder_and_a_huge_file_are_no_tables(tmp_path) -> None:
    with pytest.raises(PruneError):
        latency_table.read_table(tmp_path)
    (tmp_path / "t.json").write_text(f"{{{' ' * 10_000}}}")
    with limited(memory=10**6), pytest.raises(PruneError, match="would take") as caught:
        latency_table.read_table(tmp_path / "t.json")
    assert caught.value.code == "FILE_TOO_LARGE"


def test_a_table_of_another_setting_is_refused_and_one_of_another_machine_warned_of(
    tmp_path,
) -> None:
    network = read(chain())
    table, path = made_up(network, multiply_adds), tmp_path / "t.json"
    assert latency_table.check_table(table, network, MACHINE, path) == []
    (said,) = latency_table.check_table(
        table, network, dataclasses.replace(MACHINE, processor="another"), path
    )
    assert "'a processor' there, 'another' here" in said
    for change in ({"threads": 2}, {"batch": 8}):
        with pytest.raises(InputError, match="1 threads and batches of 1") as caught:
            latency_table.check_table(table, network, dataclasses.replace(MACHINE, **change), path)
        assert caught.value.hint.startswith("add --threads 1 --latency-batch 1")
    with pytest.raises(InputError, match="measured on another model"):
        latency_table.check_table(table, read(chain(16, 64)), MACHINE, path)


@pytest.mark.parametrize("options", [{"threads": 0}, {"batch": 0}])
def test_numbers_that_mean_nothing_are_refused_before_any_work(options) -> None:
    with pytest.raises(InputError) as caught:
        check_latency(LatencyOptions(**options))
    assert caught.value.code == "BAD_OPTION"


def test_a_table_in_a_folder_that_does_not_exist_is_refused_before_any_work(tmp_path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_latency(LatencyOptions(table=tmp_path / "nowhere" / "t.json"))


# --- what is measured ----------------------------------------------------------------------------


def row(slim: float, low: float, high: float) -> BenchmarkRow:
    """Return a timing beside a dense network of 10 ms; `low` and `high` bound the share kept."""
    return BenchmarkRow("cpu", "CPUExecutionProvider", 1, 1, 10.0, slim, 10 / slim, 1 / high,
                        1 / low, None, {"p50": 10.0}, {"p50": slim}, 50)  # fmt: skip


@pytest.mark.parametrize(
    ("latency", "timing", "met"),
    [
        (0.7, row(6.9, 0.68, 0.70), True),
        (0.7, row(7.5, 0.74, 0.76), False),
        (0.7, row(7.2, 0.71, 0.73), True),  # a warning says that it was almost kept
        (0.7, row(7.5, 0.60, 0.90), True),  # too noisy to say that it was missed
        ("8ms", row(7.9, 0.78, 0.80), True),
        ("7ms", row(7.9, 0.78, 0.80), False),
    ],
)
def test_a_budget_is_missed_where_the_whole_interval_is_well_above_it(latency, timing, met) -> None:
    predicted = LatencyReport(1, 1, dense_ms=9.0, slim_ms=6.3, kept=0.7)
    found = judged(predicted, timing, make_budget(latency=latency))
    assert found.met is met
    assert found.error == pytest.approx(0.7 / (timing.slim_ms / 10) - 1)
    assert judged(predicted, timing, make_budget(flops=0.5)).met is None
    assert bool(_missed(found)) is (timing.slim_ms / 10 > found.asked)


def test_without_a_block_the_same_table_predicts_what_is_left_and_a_budget_deletes_blocks() -> None:
    network = read(randomize_(cifar_resnet(depth=8), seed=1).eval(), torch.zeros(2, 3, 16, 16))
    bound = timed(network, made_up(network, multiply_adds))
    block = bound.blocks[0]
    left = bound.without([block]).cost
    convolutions = [name for name in block.tensors if "conv" in name]
    gone = sum(network.tensors[name].numel() for name in convolutions) * 16 * 16 * 1e-6
    whole = bound.cost.cost(bound.cost.dense_widths)["latency"]
    assert left.dense["latency"] == pytest.approx(whole)
    assert left.cost(left.dense_widths)["latency"] == pytest.approx(whole - gone)
    options = PruneOptions(delete_blocks=True)
    report = prune_network(bound, budget=make_budget(latency=0.02), options=options).report
    assert report.blocks.deleted
    assert report.cost.kept["latency"] <= 0.02


def quick(monkeypatch) -> None:
    monkeypatch.setattr(latency_table, "WHOLE_SECONDS", 0.05)
    monkeypatch.setattr(operators, "LEAST_ROUNDS", 2)
    monkeypatch.setattr("prunecli.pruning.timed.SECONDS", 0.1)
    measure = latency_table.measure_table
    monkeypatch.setattr(
        latency_table, "measure_table", lambda *a, **k: measure(*a, **{**k, "seconds": 0.1})
    )


def test_a_network_is_measured_cut_and_measured_again(tmp_path, monkeypatch) -> None:
    quick(monkeypatch)
    # Large enough that its time can be told from a tick of the clock.
    model, image, path = chain(64, 128), torch.zeros(2, 3, 32, 32), tmp_path / "t.json"
    options = PruneOptions(latency=LatencyOptions(table=path))
    result = prunecli.prune(model, image, latency=0.8, options=options, threads=1)
    table = latency_table.read_table(path)
    assert table.machine == latency_table.this_machine(threads=1)
    assert len(table.grids) == 3
    assert all(value > 0 for grids in table.grids.values() for grid in grids
               for value in itertools.chain(*grid.ms))  # fmt: skip
    found = result.report.latency
    assert found.dense_ms == pytest.approx(table.dense_ms)
    assert 0 < found.kept <= 0.8
    assert found.measured.slim_ms > 0
    assert found.asked == 0.8
    # The table is read, not measured again; a dry run says what would be.
    monkeypatch.setattr(latency_table, "measure_table", None)
    again = prunecli.prune(model, image, latency=0.8, latency_table=path, threads=1, dry_run=True)
    assert again.plan.keep == result.plan.keep
    assert again.report.latency.measured is None
    signal = "weight/value/l1/latency-removed"
    choices = {"signal": signal, "latency_table": path, "threads": 1}
    other = prunecli.prune(model, image, flops=0.5, **choices, dry_run=True)
    assert other.report.latency.asked is None


def test_an_input_that_cannot_be_described_has_no_latency() -> None:
    model = nn.ModuleList([chain()])
    model.forward = lambda images: model[0](images[0])
    with pytest.raises(InputError, match="is a list, not a tensor") as caught:
        prunecli.prune(model, [[IMAGE]], latency=0.5)
    assert caught.value.code == "BAD_EXAMPLE"


def test_a_network_of_several_inputs_has_a_latency() -> None:
    example = torch.randn(1, 3, 16, 16), torch.rand(1, 1, 16, 16), torch.randint(50, (1, 3))
    result = prunecli.prune(Several(), example, latency=0.99, threads=1, dry_run=True)
    assert 0 < result.report.latency.slim_ms <= result.report.latency.dense_ms


@pytest.mark.parametrize("choices", [{"threads": 2}, {"latency_batch": 8}])
def test_options_of_a_latency_that_nobody_asks_for_are_refused(choices) -> None:
    with pytest.raises(InputError, match="has no effect without --latency") as caught:
        prunecli.prune(chain(), IMAGE, flops=0.5, **choices)
    assert caught.value.code == "OPTION_WITHOUT_EFFECT"


# --- on the command line -------------------------------------------------------------------------


def test_the_command_line_reads_a_table_and_measures_what_it_cut(
    digits_checkpoint, monkeypatch, tmp_path, capsys
) -> None:
    monkeypatch.setattr("prunecli.pruning.timed.SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)
    checkpoint = load(digits_checkpoint).checkpoint
    network = read(instantiate(checkpoint), example_tensors(checkpoint.input)[0])
    here = latency_table.this_machine(threads=1)
    table = dataclasses.replace(made_up(network, multiply_adds), machine=here)
    latency_table.write_table(table, tmp_path / "t.json")
    words = ["prune", digits_checkpoint.name, "--latency", "0.8", "--threads", "1",
             "--latency-table", "t.json", "--json"]  # fmt: skip
    code = main([*words, "--dry-run"])
    first = json.loads(capsys.readouterr().out)
    assert code == 0
    assert first["data"]["latency"]["measured"] is None
    written = (tmp_path / "t.json").read_bytes()
    code = main(words)
    data = json.loads(capsys.readouterr().out)["data"]
    assert code in {0, 1}  # a timing of a tenth of a second may say anything
    assert (tmp_path / "t.json").read_bytes() == written
    assert (tmp_path / data["output"]).exists()
    assert data["plan"]["keep"] == first["data"]["plan"]["keep"]
    assert data["latency"]["kept"] <= 0.8
    assert data["latency"]["measured"]["slim_ms"] > 0
    assert main([*words, "--latency-batch", "4", "--overwrite"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "TABLE_OF_ANOTHER_SETTING"


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1)])
def test_a_budget_that_is_missed_in_reality_is_a_missed_gate(
    met: bool, code: int, monkeypatch, tmp_path, capsys
) -> None:
    fake = FakeVerbs(latency=latency_report(met=met))
    monkeypatch.setitem(sys.modules, "prunecli.verbs", fake)
    monkeypatch.setattr(prunecli, "verbs", fake, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pt").write_bytes(b"weights")
    assert main(["prune", "m.pt", "--latency", "0.7", "--threads", "2", "--verbose"]) == code
    captured = capsys.readouterr()
    _, options = fake.calls[0]
    assert str(options["budget"]) == "latency <= 0.7"
    assert options["options"].latency == LatencyOptions(threads=2)
    assert "78.0 %" in captured.err
    assert "77.0 to 79.0 %" in captured.err
    assert ("--latency 0.62 makes up for" in captured.err) is not met
    assert (tmp_path / "m.pruned.pt").exists()
