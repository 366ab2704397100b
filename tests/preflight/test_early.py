"""What can be known without torch is told without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.early_errors import cases, make_folder

# Runs one command line after the other in one process, and says of each what came of it.
EACH = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from prunecli_cli.main import main
for words in json.load(sys.stdin):
    told, talk = io.StringIO(), io.StringIO()
    with redirect_stdout(told), redirect_stderr(talk):
        code = main([*words, "--json"])
    error = json.loads(told.getvalue())["error"]
    heavy = [name for name in ("torch", "numpy", "timm", "torchvision") if name in sys.modules]
    print(json.dumps([code, error, heavy]), flush=True)
"""

CASES = list(cases())


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of the cases came to: its exit code, its error, and what was imported by then."""
    folder = make_folder(tmp_path_factory.mktemp("early") / "here")
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        cwd=folder,
        input=json.dumps([words for words, _ in CASES]),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    kept = {"model.pt", "folder", "empty.pt", "taken.pt", "taken.html", "taken.onnx"}
    assert {path.name for path in folder.iterdir()} == kept  # nothing was written
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("at", range(len(CASES)), ids=lambda at: " ".join(CASES[at][0]))
def test_an_error_comes_before_torch_with_its_code_and_a_hint(told, at):
    _, code = CASES[at]
    exit_code, error, heavy = told[at]
    assert (error["code"], heavy) == (code, [])
    assert exit_code == (4 if code == "EMPTY_FILE" else 1 if exit_code == 1 else 2)
    assert error["hint"]


NEAREST = {
    "prune modle.pt --flops 0.5": "model.pt",
    "prune model.pt --flops 0.5 --signal tailor --data digits": "'taylor'",
    "prune model.pt --flops 0.5 --allocation gredy": "'greedy'",
    "prune model.pt --flops 0.5 --method iteratve --data digits": "'iterative'",
    "prune model.pt --flops 0.5 --arch resnt50": "'resnet50'",
    "prune model.pt --flops 0.5 --data digit": "'digits'",
    "prune model.pt --sparsity 0.5 --granularity weight --allocation lmap": "'lamp'",
    "evaluate model.pt --data digits --split tset": "'test'",
    "export model.pt --onnx x.onnx --device cqu": "'cpu'",
    "finetune model.pt --data digits --regularizer bridgout": "'bridgeout'",
    "methods sginal": "'signal'",
}


@pytest.mark.parametrize("line", NEAREST)
def test_a_misspelt_word_is_told_with_the_nearest(told, line):
    at = [" ".join(words) for words, _ in CASES].index(line)
    assert f"did you mean {NEAREST[line]}?" in told[at][1]["hint"]


def test_a_name_that_resembles_nothing_has_no_nearest(told):
    at = [" ".join(words) for words, _ in CASES].index("prune nothere.pt --flops 0.5")
    assert told[at][1]["hint"] == "check the path"
