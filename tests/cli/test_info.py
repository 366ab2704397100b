"""`prunecli info` on real files: quick, harmless, and nothing of a file steers the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from prunecli.artefacts.provenance import read
from prunecli.checkpoint import save
from tests.support.command_line import envelope, run

# Runs the command, then says whether torch was imported and what the processor has worked.
WATCHED = """
import atexit, resource, sys

def told():
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("torch" in sys.modules, used.ru_utime + used.ru_stime, file=sys.stderr)

atexit.register(told)
from prunecli_cli.main import run
run()
"""
MOST_SECONDS = 3.0
"""Of the processor; a second is usual, and torch alone would take two more."""


def files(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_takes_no_torch_and_hardly_any_time_and_leaves_nothing(
    tmp_path, make_checkpoint, suffix
):
    path = tmp_path / f"m{suffix}"
    save(make_checkpoint("cifar_resnet20"), path)
    before = files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "info", path.name, "--json"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ},
    )  # fmt: skip
    imported, seconds = done.stderr.split()
    assert imported == "False"
    assert float(seconds) < MOST_SECONDS
    assert json.loads(done.stdout)["data"]["architecture"]["name"] == "cifar_resnet20"
    assert files(tmp_path) == before


def test_what_stands_in_a_file_is_written_out_for_the_terminal(
    tmp_path, capsys, make_checkpoint, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    hostile = "cat\x1b]0;owned\x07\n[red]dog\u202e"
    checkpoint = make_checkpoint("digits_vgg")
    state = dict(checkpoint.tensors)
    torch.save({"model": state, hostile: {hostile: torch.ones(2)}, f"acc_{hostile}": 3.0}, "m.pt")
    code, out, _ = run(capsys, "info", "m.pt", "--verbose")
    assert code == 0
    assert "cat\\x1b" in out
    assert "[red]dog" in out.replace("\n", "").replace(" ", "")
    assert not set(out) & {"\x1b", "\x07", "\u202e"}


def test_the_table_names_what_people_ask_for(tmp_path, capsys, make_checkpoint):
    path = tmp_path / "m.pt"
    save(make_checkpoint("digits_vgg"), path)
    code, out, _ = run(capsys, "info", str(path))
    assert code == 0
    for word in ("artefact of prunecli", "digits_vgg", "8 x 8 pixels", "parameters", "--build"):
        assert word in " ".join(out.split())
    code, out, _ = run(capsys, "info", str(path), "-q")
    assert out.strip() == read(path).sha256


def test_a_file_that_would_run_code_ends_with_the_same_code_as_elsewhere(tmp_path, capsys):
    path = tmp_path / "m.pt"
    torch.save({"x": torch.ones(1), "f": os.system}, path)
    code, found = envelope(capsys, "info", str(path))
    other, elsewhere = envelope(capsys, "analyze", str(path))
    assert (code, found["error"]["code"]) == (other, elsewhere["error"]["code"])
    assert (code, found["error"]["code"]) == (4, "UNSAFE_PICKLE")


def test_a_whole_model_is_named_by_its_class(tmp_path, capsys):
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3)), path)
    code, out, _ = run(capsys, "info", str(path))
    assert code == 0
    text = " ".join(out.split())
    assert "a model of the class torch.nn.modules.container.Sequential" in text
    assert "pickled as a whole" in text
