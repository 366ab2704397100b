"""Ratios, memory and energy of models that are timed in turns."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunecli.architectures.reference import InputSpec
from prunecli.exporting.timing.energy import EnergyCounter, find_counters, joules_each
from prunecli.exporting.timing.engines import Contestant
from prunecli.exporting.timing.peak_memory import peak_memory
from prunecli.exporting.timing.race import Racer, race
from prunecli.report import BenchReport, Gates, ModelTiming, TimingRow, missed_gate


def product(path, *, inputs, outputs, copies=1):
    """Write a matrix product, with `copies` of it one after the other added up."""
    weight = np.ones((inputs, outputs), np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"], axis=1)]
    nodes += [helper.make_node("MatMul", ["flat", "w"], [f"y{at}"]) for at in range(copies)]
    nodes += [helper.make_node("Sum", [f"y{at}" for at in range(copies)], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 1, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return Racer(path.stem, Contestant(path), InputSpec(1, 1, inputs, (0.0,), (1.0,)))


def test_every_model_is_timed_and_its_ratio_is_to_the_first(tmp_path):
    racers = [
        product(tmp_path / "large.onnx", inputs=512, outputs=2048),
        product(tmp_path / "small.onnx", inputs=8, outputs=8),
    ]
    rows = race(racers, batches=(1, 4), threads=1, runs=5, time_limit=1.0)
    assert [row.batch for row in rows] == [1, 4]
    for row in rows:
        large, small = row.models
        assert large.ratio is None
        assert small.ratio == pytest.approx(small.median / large.median)
        assert small.ratio_low <= small.ratio <= small.ratio_high
        assert small.percentiles["p50"] <= small.percentiles["p90"] <= small.percentiles["p99"]
        assert (small.peak_bytes, small.joules) == (None, None)


def test_peak_memory_holds_the_weights_and_grows_with_them(tmp_path):
    peaks = []
    for inputs in (64, 4096):
        racer = product(tmp_path / f"{inputs}.onnx", inputs=inputs, outputs=4096)
        path = racer.contestant.path
        peaks.append(peak_memory(path, input=racer.input, batch=1, threads=1))
    small, large = peaks
    weights = 4 * 4096 * 4096
    assert weights < large < 6 * weights
    assert small < large - weights / 2


def test_memory_of_a_file_that_does_not_run_is_not_known(tmp_path):
    path = tmp_path / "no.onnx"
    path.write_bytes(b"no model")
    assert peak_memory(path, input=InputSpec(1, 1, 1), batch=1, threads=1) is None


def package(root, name, microjoules, end=10**9):
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{end}\n")
    return folder / "energy_uj"


def test_counters_are_those_of_whole_packages_that_can_be_read(tmp_path):
    first = package(tmp_path, "intel-rapl:0", 5)
    package(tmp_path, "intel-rapl:0:0", 3)  # the cores, which count in the package
    second = package(tmp_path, "intel-rapl:1", 7, end=100)
    (tmp_path / "intel-rapl:2").mkdir()
    (tmp_path / "other").mkdir()
    assert find_counters(tmp_path) == (EnergyCounter(first, 10**9), EnergyCounter(second, 100))
    assert find_counters(tmp_path / "none") == ()


def test_joules_are_those_of_one_run_also_where_a_counter_starts_again(tmp_path):
    file = package(tmp_path, "intel-rapl:0", 999_999_000)
    (counter,) = find_counters(tmp_path)

    def takes(microjoules):
        def run():
            file.write_text(str((counter.read() + microjoules) % counter.end))

        return run

    found = joules_each([takes(2000), takes(500)], [counter], seconds=0.02)
    assert found == pytest.approx((0.002, 0.0005))


def row(*ratios, batch=1):
    first = ModelTiming("a.onnx", {"p50": 2.0})
    others = [
        ModelTiming(f"{at}.onnx", {"p50": 2.0 * ratio}, ratio, low, high)
        for at, (low, ratio, high) in enumerate(ratios, start=1)
    ]
    return TimingRow("cpu", "CPUExecutionProvider", batch, 1, 50, (first, *others))


def slower(*rows, allowed=0.02):
    return missed_gate(Gates(max_slowdown=allowed), BenchReport({}, rows, False, 1.0))


def test_a_gate_fails_only_where_the_whole_interval_is_beyond():
    assert slower(row((1.00, 1.05, 1.10))) is None
    assert slower(row((1.015, 1.05, 1.10))) is None
    error = slower(row((1.03, 1.05, 1.10)))
    assert error.exit_code == 1
    assert "1.onnx takes 1.050 times as long as a.onnx on cpu at batch 1" in error.message
    assert "1.030 to 1.100" in error.message
    assert slower(row((1.03, 1.05, 1.10)), allowed=0.05) is None


def test_a_gate_names_every_model_and_batch_that_is_slower():
    error = slower(row((1.5, 1.6, 1.7), (0.5, 0.6, 0.7)), row((0.9, 1, 1.1), (2, 3, 4), batch=8))
    assert "1.onnx takes 1.600" in error.message
    assert "2.onnx takes 3.000 times as long as a.onnx on cpu at batch 8" in error.message
    assert error.message.count("times as long") == 2


def test_a_gate_without_anything_to_compare_with_is_not_met():
    alone = dataclasses.replace(row(), models=row().models[:1])
    assert "no ratio of times was measured" in slower(alone).message
