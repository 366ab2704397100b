"""The verbs on real files, in one process: the road end to end, and every bad input on it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunecli_cli.main import main

QUICK = ["--no-benchmark"]
TRAINING = ["--data", "digits", "--epochs", "1", "--limit", "256", "--batch-size", "64"]


@pytest.fixture
def model(digits_checkpoint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return digits_checkpoint.name


def call(capsys, *words):
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def refusal(capsys, *words):
    code, found = call(capsys, *words)
    assert found["ok"] is False
    assert found["error"]["message"]
    assert found["error"]["hint"]
    return code, found["error"]["code"]


def test_the_whole_road_ends_in_an_onnx_file_as_good_as_the_checkpoint(model, capsys):
    code, pruned = call(capsys, "prune", model, "--flops", "0.5")
    assert code == 0
    kept = pruned["data"]["cost"]["kept"]["flops"]
    assert 0 < kept <= 0.5
    assert pruned["data"]["verified"]["max_rel_error"] <= 1e-6
    slim = pruned["data"]["output"]
    code, tuned = call(capsys, "finetune", slim, *TRAINING, "--teacher", model)
    assert code == 0
    assert len(tuned["data"]["epochs"]) == 1
    assert Path(tuned["data"]["log"]).exists()
    code, exported = call(capsys, "export", *QUICK)
    assert code == 0
    assert exported["data"]["output"] == "digits_resnet.pruned.finetuned.onnx"
    assert exported["data"]["parity"]["max_rel_error"] <= 1e-4
    scores = [
        call(capsys, "evaluate", path, "--data", "digits")[1]["data"]
        for path in (tuned["data"]["output"], exported["data"]["output"])
    ]
    assert scores[0]["count"] == scores[1]["count"] > 0
    brought = {"size": [8, 8], "resized": [8, 8], "channels": 1, "mean": [0.305], "std": [0.376]}
    assert [found["preparation"] for found in (*scores, tuned["data"])] == [brought] * 3
    assert pruned["data"]["preparation"] is None  # it looked at no image
    assert scores[0]["accuracy"] == pytest.approx(scores[1]["accuracy"], abs=1e-3)
    assert scores[0]["accuracy"] == pytest.approx(tuned["data"]["accuracy"]["after"], abs=1e-9)


def test_the_same_command_writes_the_same_bytes(model, capsys):
    words = ("prune", model, "--flops", "0.5", "--signal", "random", "--seed", "3", "--overwrite")
    contents = []
    for _ in range(2):
        assert call(capsys, *words)[0] == 0
        contents.append(Path("digits_resnet.pruned.pt").read_bytes())
    assert contents[0] == contents[1]


def test_analyze_looks_at_a_model_and_at_data(model, capsys):
    code, found = call(capsys, "analyze", model)
    assert code == 0
    assert found["data"]["dataset"] is None
    assert found["data"]["model"]["groups"]
    assert found["data"]["model"]["frozen"]
    code, found = call(capsys, "analyze", "digits")
    assert code == 0
    assert found["data"]["dataset"]["csg"] > 0
    assert found["data"]["model"] is None


def test_a_dry_run_shows_the_plan_and_writes_nothing(model, capsys):
    before = sorted(Path().rglob("*"))
    code, found = call(capsys, "prune", model, "--flops", "0.5", "--dry-run")
    assert code == 0
    assert found["data"]["output"] is None
    assert found["data"]["plan"]["keep"]
    assert sorted(Path().rglob("*")) == before


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self):
        return (os.system, ("touch exploded",))


def _write(name, content):
    Path(name).write_bytes(content)
    return name


BAD_FILES = {
    "missing": (lambda _: "nowhere.pt", 2),
    "a folder": (lambda _: str(Path("folder").mkdir() or "folder"), 2),
    "empty": (lambda _: _write("empty.pt", b""), 4),
    "not a checkpoint": (lambda _: _write("text.pt", b"hello, this is text\n" * 20), 4),
    "truncated": (lambda model: _write("cut.pt", Path(model).read_bytes()[:-2000]), 4),
    "a pickle that runs code": (lambda _: _write("bomb.pt", pickle.dumps(Bomb())), 4),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_cannot_be_trusted_or_read_is_refused(model, capsys, kind):
    make, expected = BAD_FILES[kind]
    path = make(model)
    before = sorted(Path().rglob("*"))
    assert refusal(capsys, "prune", path, "--flops", "0.5")[0] == expected
    assert sorted(Path().rglob("*")) == before
    assert not Path("exploded").exists()


def test_an_unknown_network_and_an_unknown_name_are_refused(model, capsys):
    torch.save({"a.weight": torch.zeros(3, 3)}, "unknown.pt")
    assert refusal(capsys, "prune", "unknown.pt", "--flops", "0.5") == (2, "UNKNOWN_ARCHITECTURE")
    assert refusal(capsys, "prune", model, "--flops", "0.5", "--arch", "nonsense.x:y")[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (["--flops", "0.5", "-o", "digits_resnet.pt", "--overwrite"], 2, "OUTPUT_IS_INPUT"),
        (["--flops", "0.5", "-o", "no/such/folder/x.pt"], 2, "UNWRITABLE_OUTPUT"),
        (["--flops", "0.5", "-o", "x.docx"], 2, "UNWRITABLE_OUTPUT"),
        (["--flops", "0.5", "--signal", "l3"], 2, "UNKNOWN_SIGNAL"),
        (["--flops", "0.5", "--allocation", "globl"], 2, "UNKNOWN_ALLOCATION"),
        (["--flops", "0.5", "--only", "nothing.*"], 2, None),
        (["--flops", "0.0001"], 1, None),
        (["--flops", "0.5", "--signal", "taylor"], 2, None),
        (["--flops", "0.5", "--signal", "taylor", "--data", "nowhere/"], 2, "DATA_NOT_FOUND"),
    ],
)
def test_a_cut_that_cannot_be_made_says_why_and_writes_nothing(model, capsys, words, code, name):
    before = sorted(Path().rglob("*"))
    got, found = refusal(capsys, "prune", model, *words)
    assert got == code
    assert name is None or found == name
    assert sorted(Path().rglob("*")) == before


def test_an_output_that_exists_is_kept_unless_told_otherwise(model, capsys):
    Path("digits_resnet.pruned.pt").write_text("precious")
    assert refusal(capsys, "prune", model, "--flops", "0.5") == (2, "OUTPUT_EXISTS")
    assert Path("digits_resnet.pruned.pt").read_text() == "precious"
    assert call(capsys, "prune", model, "--flops", "0.5", "--overwrite")[0] == 0


def test_a_missing_device_exits_6(model, capsys):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    code, _ = refusal(capsys, "export", model, "--device", "cuda", "--runs", "2")
    assert code == 6


def test_data_that_does_not_fit_the_network_is_refused(model, capsys):
    for name in ("cat", "dog"):
        (Path("images") / name).mkdir(parents=True)
    code, _ = refusal(capsys, "evaluate", model, "--data", "images")
    assert code == 2


PROGRAM = "from prunecli_cli.main import run; run()"


def test_ctrl_c_while_training_saves_and_exits_130_and_says_how_to_go_on(model):
    words = ["finetune", model, "--data", "digits", "--epochs", "200", "-o", "t.pt"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    for line in process.stderr:
        if line.startswith("train"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "--resume" in err
    assert "Traceback" not in err
    assert not Path("t.pt").exists()
    assert Path("t.run").is_dir()
    assert (Path("t.run") / "state.pt").exists()
    again = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert again.returncode == 2
    assert "--resume" in again.stderr
