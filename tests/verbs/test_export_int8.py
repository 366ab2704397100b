"""`export --int8` on files: names, gates, times beside float, and the other verbs on the result."""

from __future__ import annotations

import dataclasses
import json

import pytest

from prunecli import verbs
from prunecli.html import export_page
from prunecli.options import CompareOptions, ExportOptions
from prunecli.report import Gates, missed_gate
from prunecli_cli.main import main
from prunecli_cli.tables import view
from tests.support.samples import VGG


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "vgg.int8.onnx"
    options = ExportOptions(int8=True, batches=(1,), runs=5, threads=1)
    return verbs.export(VGG, output=path, data="digits", options=options)


def test_the_report_holds_both_files(exported):
    found, (row,) = exported.conversion, exported.benchmark
    assert exported.bytes == found.bytes == exported.output.stat().st_size
    assert found.bytes < 0.5 * found.float_bytes
    assert found.agreement > 0.95
    assert found.accuracy.before > 0.9
    assert row.float_ms is not None
    assert row.gain_low <= row.gain <= row.gain_high
    assert exported.parity.max_rel_error < 1e-4  # that of the float file


def test_accuracy_is_what_evaluate_finds(exported):
    scores = verbs.evaluate(exported.output, data="digits")
    assert scores.precision.startswith("INT8")
    dense = verbs.evaluate(VGG, data="digits")
    assert abs(scores.accuracy - dense.accuracy) < 0.02


def test_people_and_pages_are_told(exported):
    lines = export_page(exported)
    assert "same class as in float" in lines
    assert "its float file equals PyTorch" in lines
    facts = view(exported, rows=None)[-1]
    names = [str(cell) for cell in facts.columns[0].cells]
    assert {"INT8", "same class", "accuracy", "calibrated", "layers"} <= set(names)


def test_a_drop_that_is_too_large_is_a_gate(exported):
    assert missed_gate(Gates(max_drop=1.0), exported) is None
    error = missed_gate(Gates(max_drop=-1.0), exported)
    assert error is not None
    assert error.exit_code == 1


def test_a_file_whose_layers_all_stayed_in_float_is_a_gate_too(exported):
    own = exported.conversion
    names = tuple(map(str, range(own.layers)))
    float_alone = dataclasses.replace(exported, conversion=dataclasses.replace(own, in_float=names))
    error = missed_gate(Gates(max_drop=1.0), float_alone)
    assert "no layer could be put in INT8" in str(error)


def test_compare_and_bench_say_what_a_file_computes_in(exported):
    report = verbs.compare([VGG, exported.output], options=CompareOptions(no_latency=True))
    first, second = report.models
    assert first.precision == ""
    assert second.precision.startswith("INT8")
    assert second.cost["flops"] == pytest.approx(first.cost["flops"], rel=0.02)


def test_the_command_names_its_output_and_asks_for_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(VGG), "--int8"]) == 2
    assert "add --data images/" in capsys.readouterr().err
    words = ["--int8", "--data", "digits", "--no-benchmark", "--limit", "100", "--json"]
    assert main(["export", str(VGG), *words]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["output"] == "digits_vgg.int8.onnx"
    assert data["conversion"]["precision"] == "int8"
    assert data["conversion"]["images"] == 50
    assert main(["export", str(VGG), "--data", "digits"]) == 2
