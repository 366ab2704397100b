"""What is imported by a verb, and how it is said that torch is being loaded."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from prunecli_cli.render import LOADING
from tests.support.samples import VGG

# Says which packages were imported by the end, on a file of its own.
WATCHED = """
import atexit, os, sys
from pathlib import Path
atexit.register(lambda: Path(os.environ["IMPORTED"]).write_text(" ".join(sys.modules)))
from prunecli_cli.start import run
run()
"""

HEAVY = {
    "torchvision", "sympy", "scipy.stats", "scipy.sparse", "sklearn", "pandas", "matplotlib",
    "accelerate", "onnx", "onnxruntime", "onnxscript", "fvcore", "timm", "torch._dynamo",
}  # fmt: skip
"""What takes long to import, and is used by few verbs."""

TRACING = {"torch._dynamo", "sympy", "scipy.sparse"}
"""What `torch.export` and the coupling of channels cannot do without."""


def imported(folder, *words):
    place = folder / "imported"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "IMPORTED": str(place)},
    )
    assert done.returncode == 0, done.stderr
    return HEAVY & set(place.read_text().split()), done


def test_a_cut_imports_what_tracing_needs_and_no_more(tmp_path):
    found, done = imported(tmp_path, "prune", str(VGG), "--flops", "0.5", "-q")
    assert found <= TRACING
    assert (done.stdout, done.stderr) == ("digits_vgg.pruned.pt\n", "")  # no word of loading


def test_an_evaluation_imports_nothing_but_torch(tmp_path):
    found, _ = imported(tmp_path, "evaluate", str(VGG), "--data", "digits", "-q")
    assert found <= {"scipy.sparse"}


def on_terminal(folder, *words, **more):
    """Run a command whose stderr is a terminal; return what it showed there."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "prunecli", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "CI": "", **more},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    done.communicate()
    os.close(ours)
    return shown.decode()


def test_a_terminal_is_told_at_once_that_torch_is_loaded_and_no_trace_is_left(tmp_path):
    broken = tmp_path / "m.pt"
    broken.write_bytes(b"no checkpoint")
    shown = on_terminal(tmp_path, "prune", "m.pt", "--flops", "0.5", "-q")
    assert shown.startswith(LOADING)
    cleared = "\r" + " " * len(LOADING) + "\r"
    assert shown.removeprefix(LOADING).startswith(cleared)
    assert "NOT_A_CHECKPOINT" in shown


def test_a_log_is_not_told(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"no checkpoint")
    assert LOADING not in on_terminal(tmp_path, "prune", "m.pt", "--flops", "0.5", CI="1")


def test_an_early_error_says_nothing_of_loading(tmp_path):
    assert LOADING not in on_terminal(tmp_path, "prune", "m.pt", "--flops", "0.5")
