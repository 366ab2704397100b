"""The command as a process: how fast it starts, and how it ends when others end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prunecli_cli.main import root_command

RUN = "from prunecli_cli.main import run; run()"

# Runs the entry point and then says which heavy modules were imported on the way.
WATCHED = """
import atexit, sys
HEAVY = {
    "torch", "torchvision", "numpy", "scipy", "sklearn", "onnx", "onnxruntime", "accelerate",
    "matplotlib", "prunecli.report",
}  # fmt: skip
atexit.register(lambda: print("imported:", *sorted(HEAVY & set(sys.modules)), file=sys.stderr))
from prunecli_cli.main import run
run()
"""


def start(*words, code=RUN, **options):
    environment = {**os.environ, "COLUMNS": "80", **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.DEVNULL,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


INSTANT = [
    (["--help"], {}),
    (["--version"], {}),
    *(([verb, "--help"], {}) for verb in root_command().commands),
    (["prune", "--help-all"], {}),
    ([], {"_PRUNECLI_COMPLETE": "complete_bash", "COMP_WORDS": "prunecli pr", "COMP_CWORD": "1"}),
    (
        [],
        {
            "_PRUNECLI_COMPLETE": "complete_bash",
            "COMP_WORDS": "prunecli prune --signal t",
            "COMP_CWORD": "3",
        },
    ),
    (["prune", "m.pt", "--flop"], {}),
]


@pytest.mark.parametrize(("words", "env"), INSTANT, ids=lambda part: " ".join(part) or None)
def test_help_version_completion_and_usage_errors_import_nothing_heavy(words, env):
    code, _, err = finish(start(*words, code=WATCHED, env=env))
    assert code == (2 if "--flop" in words else 0)
    assert err.splitlines()[-1].split() == ["imported:"]


def test_looking_at_a_file_that_is_no_known_architecture_builds_no_network(tmp_path):
    """Its names are numbers, as of the children of a network, and its size that of several."""
    path = tmp_path / "layers.safetensors"
    save_file({f"blocks.{i}.weight": torch.zeros(16, 16) for i in range(20)}, path)
    code, out, err = finish(start("info", str(path), code=WATCHED))
    assert code == 0
    assert "not known by its name" in out
    assert "torchvision" not in err.splitlines()[-1].split()


def test_completion_offers_verbs_and_signals():
    env = {"_PRUNECLI_COMPLETE": "complete_bash", "COMP_WORDS": "prunecli fi", "COMP_CWORD": "1"}
    assert finish(start(env=env))[1].split() == ["finetune"]
    env.update(COMP_WORDS="prunecli prune --signal tay", COMP_CWORD="3")
    assert finish(start(env=env))[1].split()[:2] == ["taylor", "taylor-share"]


@pytest.mark.parametrize("verb", root_command().commands)
def test_every_option_of_a_verb_is_explained_in_its_help(verb):
    code, out, _ = finish(start(verb, "--help"))
    assert code == 0
    assert "Examples:" in out
    if "--help-all" in out:
        code, out, _ = finish(start(verb, "--help-all"))
        assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "<bool>" not in out  # a switch takes no value
    for parameter in root_command().commands[verb].params:
        assert parameter.help, parameter.name
        for name in (*parameter.opts, *parameter.secondary_opts):
            if parameter.param_type_name == "option":
                assert name in out


def test_a_reader_that_goes_away_is_no_failure():
    reading, writing = os.pipe()
    os.close(reading)
    process = start("env", stdout=writing)
    os.close(writing)
    code, _, err = finish(process)
    assert code == 0
    assert err == ""


WAITING = """
import sys, time, types, prunecli
def prune(*_, **__):
    print("begun", file=sys.__stderr__, flush=True)
    time.sleep(30)
prunecli.verbs = types.SimpleNamespace(prune=prune)
from prunecli_cli.main import run
run()
"""


def test_ctrl_c_exits_130_without_a_traceback(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"weights")
    process = start("prune", "m.pt", "--flops", "0.5", "-q", code=WAITING, cwd=tmp_path)
    assert process.stderr.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert "error: interrupted" in err
    assert "Traceback" not in err


def test_verbs_without_a_model_work_in_a_shell_pipe(tmp_path):
    """A failing verb leaves the next one with an empty pipe, and that one says so."""
    run = f"{sys.executable} -c '{RUN}'"
    (tmp_path / "bad.pt").write_text("not a checkpoint")
    done = subprocess.run(
        ["bash", "-c", f"{run} prune bad.pt --flops 2 | {run} finetune --data digits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "BAD_BUDGET" in done.stderr
    assert "EMPTY_PIPE" in done.stderr
    assert list(tmp_path.iterdir()) == [Path(tmp_path / "bad.pt")]
