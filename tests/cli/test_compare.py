"""`prunecli compare` on real files: columns, gates, the page."""

from __future__ import annotations

import pytest
import torch

from prunecli.checkpoint import save
from tests.support.command_line import envelope, run
from tests.support.samples import VGG

OTHER = ("compare", str(VGG), "weak.pt", "--data", "digits", "--no-latency")


@pytest.fixture
def weak(make_checkpoint, tmp_path, monkeypatch):
    """Make a model that knows nothing, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    save(make_checkpoint("digits_vgg"), tmp_path / "weak.pt")


def test_every_model_is_a_column(weak, capsys):
    code, out, _ = run(capsys, *OTHER)
    assert code == 0
    head = out.splitlines()[1]
    assert head.split() == ["digits_vgg.safetensors", "weak.pt"]
    for label in ("FLOPs", "parameters", "file", "accuracy", "same class", "relative error"):
        assert any(line.split("  ")[0].strip() == label for line in out.splitlines()), label
    assert max(map(len, out.splitlines())) <= 80
    assert "resized to 8, middle 8x8" in " ".join(out.split())
    assert out.count("resized to") == 1  # it is the same for both


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (("--max-drop", "1%"), "the drop in accuracy of weak.pt is"),
        (("--min-accuracy", "0.9"), "the accuracy of weak.pt is"),
    ],
)
def test_a_gate_that_is_not_met_ends_with_1_and_names_the_model(weak, capsys, gate, message):
    code, found = envelope(capsys, *OTHER, *gate)
    assert code == 1
    assert found["error"]["code"] == "GATE_NOT_MET"
    assert message in found["error"]["message"]
    assert found["data"]["models"][1]["scores"]["accuracy"] < 0.9


def test_gates_that_are_met_end_with_0(weak, capsys):
    code, found = envelope(capsys, *OTHER, "--max-drop", "99%", "--min-accuracy", "0.0")
    assert (code, found["ok"]) == (0, True)


def test_a_gate_on_accuracy_needs_images(weak, capsys):
    words = ("compare", str(VGG), "weak.pt", "--no-latency", "--max-drop", "1%")
    code, found = envelope(capsys, *words)
    assert (code, found["error"]["code"]) == (2, "OPTION_WITHOUT_EFFECT")


def test_the_page_holds_the_table_and_is_not_overwritten(weak, capsys, tmp_path):
    hostile = "<script>alert(1)<b>.pt"
    (tmp_path / "weak.pt").rename(tmp_path / hostile.replace("/", ""))
    words = [*OTHER, "--limit", "40", "--report", "page.html"]
    words[2] = hostile.replace("/", "")
    code, _, _ = run(capsys, *words)
    assert code == 0
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert "Side by side" in text
    assert "relative error" in text
    code, found = envelope(capsys, *words)
    assert (code, found["error"]["code"]) == (2, "OUTPUT_EXISTS")


def test_nothing_is_run_before_all_models_are_read(weak, capsys, tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "no.pt")
    code, found = envelope(capsys, "compare", str(VGG), "no.pt", "--data", "digits")
    assert (code, found["error"]["where"]) == (2, "no.pt")


def test_how_images_come_to_each_model_is_told_where_it_differs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = VGG.with_name("digits_wide_resnet.safetensors")
    _, out, _ = run(capsys, "compare", str(VGG), str(other), "--data", "digits", "--no-latency")
    assert out.count("resized to") == 2
    _, out, _ = run(capsys, "compare", str(VGG), str(other), "--no-latency")
    assert "resized to" not in out  # random inputs are not brought to a model
