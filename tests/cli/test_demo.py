"""The demo: each step as one would type it, and the artefacts left behind."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import prunecli
from prunecli.errors import ProofError
from prunecli_cli import demo
from prunecli_cli.demo_tables import gain_text, latency_text
from prunecli_cli.main import main, root_command
from tests.support.benchmark_rows import benchmark_row
from tests.support.fake_verbs import FakeVerbs


@pytest.fixture
def verbs(monkeypatch, tmp_path):
    fake = FakeVerbs()
    monkeypatch.setitem(sys.modules, "prunecli.verbs", fake)
    monkeypatch.setattr(prunecli, "verbs", fake, raising=False)
    monkeypatch.setattr(demo, "prepare_folder", _make_folder)
    monkeypatch.chdir(tmp_path)
    return fake


def _make_folder(folder):
    folder.mkdir(exist_ok=True)
    (folder / demo.MODEL).write_bytes(bytes(1_640_000))


def test_every_step_is_a_command_that_one_can_type():
    verbs = [shlex.split(step)[0] for step in demo.STEPS]
    assert verbs == ["analyze", "compress", "compare"]
    assert set(verbs) <= set(root_command().commands)


def test_the_steps_are_shown_run_in_the_folder_and_recorded(verbs, capsys, tmp_path):
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert out == "prunecli-demo\n"
    typed = err.replace(" \\\n   ", "")  # as a shell reads a line that goes on
    for step in demo.STEPS:
        assert f"$ prunecli {step}\n" in typed
    assert [verb for verb, _ in verbs.calls] == ["analyze", "compress", "compare"]
    assert Path.cwd() == tmp_path
    left = {path.name for path in Path("prunecli-demo").iterdir()}
    assert {"slim.pt", "slim.onnx", ".prunecli"} <= left
    assert not Path(".prunecli").exists()


def test_every_line_of_a_command_fits_into_80_columns_and_ends_before_an_option(verbs, capsys):
    assert main(["demo"]) == 0
    assert main(["demo"]) == 0  # the longer commands, which overwrite
    shown = capsys.readouterr().err.splitlines()
    commands = [line for line in shown if line.startswith(("$ prunecli", "    -"))]
    assert len(commands) > 2 * len(demo.STEPS)
    assert all(len(line) <= 80 for line in commands)
    assert all(
        later.startswith("    -")
        for line, later in itertools.pairwise(shown)
        if line.startswith("$") and line.endswith("\\")
    )


def test_the_demo_takes_one_thread_and_gives_the_others_back(verbs, monkeypatch):
    threads = []
    original = verbs.compress
    monkeypatch.setattr(
        verbs,
        "compress",
        lambda *given, **options: (
            threads.append(torch.get_num_threads()) or original(*given, **options)
        ),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert main(["demo", "-q"]) == 0
        assert threads == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_artefacts_say_the_commands_that_were_shown(verbs):
    assert main(["demo", "-q"]) == 0
    commands = [options["command"] for _, options in verbs.calls if options.get("command")]
    expected = [f"prunecli {step}" for step in demo.STEPS]
    assert [command for command in commands if command in expected] == commands
    writing = [step for step in expected if step.removeprefix("prunecli ").startswith(demo.WRITING)]
    assert [command for command in commands if command in writing] == writing


def test_a_second_demo_in_the_same_folder_begins_anew(verbs, capsys):
    assert main(["demo"]) == 0
    assert "--overwrite" not in capsys.readouterr().err
    assert main(["demo"]) == 0
    assert capsys.readouterr().err.count("--overwrite\n") == 1
    assert [options["overwrite"] for verb, options in verbs.calls if verb == "compress"] == [
        False,
        True,
    ]


def test_json_holds_every_step_with_its_data(verbs, capsys):
    assert main(["demo", "--json"]) == 0
    out, err = capsys.readouterr()
    data = json.loads(out)["data"]
    assert set(data) == {"folder", "steps", "result", "seconds"}
    assert data["result"]["file_bytes"][0] == 1_640_000
    accuracy = data["result"]["accuracy"]
    assert (accuracy["before"], accuracy["after"], accuracy["split"]) == (0.93, 0.9, "test")
    assert data["result"]["images"] == 360
    assert [set(step) for step in data["steps"]] == [{"command", "seconds", "data"}] * 3
    assert data["steps"][-1]["data"]["models"][1]["scores"]["accuracy"] == 0.9
    assert err == ""


def test_quiet_prints_the_folder_alone(verbs, capsys):
    assert main(["demo", "--out", "elsewhere", "-q"]) == 0
    assert capsys.readouterr() == ("elsewhere\n", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [(ProofError("not equal", code="PROOF_FAILED", hint="h"), 5), (KeyboardInterrupt(), 130)],
)
def test_a_step_that_fails_ends_the_demo_with_its_exit_code(verbs, capsys, tmp_path, error, code):
    verbs.raises = error
    assert main(["demo"]) == code
    assert Path.cwd() == tmp_path
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_made_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["demo", "--out", "file"]) == 2
    assert "UNWRITABLE_OUTPUT" in capsys.readouterr().err


def test_the_end_compares_before_and_after_and_says_what_to_type_next(verbs, capsys):
    assert main(["demo"]) == 0
    lines = capsys.readouterr().err.splitlines()
    end = lines[max(at for at, line in enumerate(lines) if " before " in line) :]
    rows = [re.split(r"\s{2,}", line.strip()) for line in end]
    assert ["FLOPs", "41M", "20.3M", "49.5 % kept"] in rows
    assert ["parameters", "272k", "151k", "55.5 % kept"] in rows
    assert ["latency, ms per batch of 8", "12.30", "7.60", "1.62x faster"] in rows
    assert ["accuracy on 360 test images", "93.0 %", "90.0 %", "-3.0 points"] in rows
    assert ["verified", "equals the masked original (max relative error 3.0e-16)"] in rows
    assert (
        end[-1] == "next: try your own model: prunecli compress model.pt --data images/ --speedup 2"
    )
    assert all(len(line) <= 80 for line in end)


@pytest.mark.parametrize(
    ("speedup", "low", "high", "said"),
    [
        (1.85, 1.8, 1.9, "1.85x faster"),
        (1.02, 0.97, 1.06, "no clear difference"),
        (0.5, 0.45, 0.55, "2.00x slower"),
    ],
)
def test_a_gain_is_said_only_where_the_timing_is_sure_of_it(speedup, low, high, said):
    assert gain_text(benchmark_row(speedup, low, high), unsteady=False) == said
    assert gain_text(benchmark_row(speedup, low, high), unsteady=True) == "uncertain"


ONE = benchmark_row(1.75, 1.73, 1.77, batch=1, slim_ms=0.4)


@pytest.mark.parametrize(
    ("eight", "unsteady"),
    [
        (benchmark_row(1.85, 1.8, 1.9), ()),
        (benchmark_row(3.98, 1.24, 4.21), (8,)),  # a wide interval
        (benchmark_row(7.33, 7.19, 7.5), (8,)),  # a narrow one, but 2.75 ms an image, alone 0.7
        (benchmark_row(1.85, 1.8, 1.9, slim_ms=6.0), (8,)),
    ],
)
def test_a_timing_that_other_programs_interrupted_is_found(eight, unsteady):
    said = latency_text((ONE, eight))
    assert "1.73x to 1.77x at batch 1" in said
    assert ("uncertain at batch 8" in said) == bool(unsteady)
    assert (f"{eight.speedup_low:.2f}x to {eight.speedup_high:.2f}x" in said) != bool(unsteady)


@pytest.mark.slow
def test_the_demo_keeps_its_budget_and_loses_little(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    _analyzed, compressed, compared = (step["data"] for step in data["steps"])
    assert all(wish["ok"] for wish in compressed["met"])
    assert compressed["after"]["flops"] <= 0.5 * compressed["before"]["flops"]
    result = data["result"]
    assert result["accuracy"]["after"] > result["accuracy"]["before"] - 0.02
    assert result["verified"]["max_rel_error"] < 1e-12
    assert compressed["parity"]["max_rel_error"] <= 1e-4
    assert result["accuracy"]["after"] == compared["models"][1]["scores"]["accuracy"]
    # Far below what an idle machine shows, because tests run beside each other.
    assert all(row["speedup"] > 1.2 for row in result["benchmark"])
