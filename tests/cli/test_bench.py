"""`prunecli bench` on real files: percentiles, ratios, memory, exit codes."""

from __future__ import annotations

import pytest

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.exporting import to_onnx
from prunecli.exporting.timing import peak_memory
from tests.support.command_line import envelope, run
from tests.support.samples import VGG

WIDE = VGG.with_name("digits_wide_resnet.safetensors")
QUICK = ("--runs", "20", "--threads", "1", "--seconds", "2")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the VGG and the wide network as ONNX."""
    found = []
    for path, size in ((VGG, 8), (WIDE, 16)):
        file = tmp_path_factory.mktemp("onnx") / f"{path.stem}.onnx"
        to_onnx(prunecli.load(path), file, input=InputSpec(1, size, size, (0.3,), (0.3,)))
        found.append(str(file))
    return found


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_models_are_columns_and_json_holds_every_figure(capsys, tmp_path):
    code, found = envelope(capsys, "bench", str(VGG), str(WIDE), *QUICK, "--batch", "1,2")
    assert code == 0
    data = found["data"]
    assert list(data["models"]) == [VGG.name, WIDE.name]
    assert [row["batch"] for row in data["timings"]] == [1, 2]
    for row in data["timings"]:
        vgg, wide = row["models"]
        assert {"p50", "p90", "p99"} <= wide["percentiles"].keys()
        assert wide["ratio_low"] <= wide["ratio"] <= wide["ratio_high"]
        assert vgg["ratio"] is None
        assert wide["peak_bytes"] > 0
    assert not list(tmp_path.iterdir())


def test_a_slower_model_ends_with_1_and_a_faster_one_with_0(capsys, exported):
    """The wide network takes more than ten times as long."""
    vgg, wide = exported
    words = (*QUICK, "--batch", "4", "--no-memory", "--fail-if-slower", "2%")
    code, found = envelope(capsys, "bench", vgg, wide, *words)
    assert code == 1
    assert found["error"]["where"] == "--fail-if-slower"
    assert "digits_wide_resnet.onnx takes" in found["error"]["message"]
    code, found = envelope(capsys, "bench", wide, vgg, *words)
    assert (code, found["ok"]) == (0, True)


def test_a_single_model_is_timed_and_has_no_ratio(capsys, exported):
    code, out, _ = run(capsys, "bench", exported[0], *QUICK, "--batch", "1", "--no-memory")
    assert code == 0
    assert "ms, cpu at batch 1" in out
    assert "of the first" not in out


def test_a_device_that_is_not_there_is_an_error_before_any_file_is_read(capsys):
    code, found = envelope(capsys, "bench", "missing.pt", "--device", "quantum")
    assert (code, found["error"]["code"]) == (2, "UNKNOWN_DEVICE")


def test_the_api_takes_keywords(exported):
    how = {"runs": 3, "batches": (1,), "seconds": 0.5, "no_memory": True, "threads": 1}
    found = prunecli.bench(exported[:1], **how)
    assert found.timings[0].models[0].model == "digits_vgg.onnx"


def test_memory_that_could_not_be_measured_is_said(capsys, exported, monkeypatch):
    monkeypatch.setattr(peak_memory, "PATIENCE", 0.0)
    code, found = envelope(capsys, "bench", exported[0], *QUICK, "--batch", "1")
    assert code == 0
    assert found["data"]["timings"][0]["models"][0]["peak_bytes"] is None
    assert any("peak memory of digits_vgg.onnx" in text for text in found["warnings"])
    code, found = envelope(capsys, "bench", exported[0], *QUICK, "--batch", "1", "--no-memory")
    assert not any("peak memory" in text for text in found["warnings"])
