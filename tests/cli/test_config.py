"""Flags beat PRUNECLI_ variables beat pyproject.toml beat defaults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunecli.options import PruneOptions
from prunecli_cli import config
from prunecli_cli.main import command_options, main


def options_given(verbs, *words):
    assert main(["prune", "m.pt", "--flops", "0.5", "--overwrite", *words]) == 0
    return verbs.calls[-1][1]["options"]


def test_each_source_beats_the_next(verbs, monkeypatch):
    assert options_given(verbs).seed == PruneOptions.seed == 0
    Path("pyproject.toml").write_text("[tool.prunecli]\nseed = 1\n")
    assert options_given(verbs).seed == 1
    Path("pyproject.toml").write_text("[tool.prunecli]\nseed = 1\n[tool.prunecli.prune]\nseed = 2")
    assert options_given(verbs).seed == 2
    monkeypatch.setenv("PRUNECLI_SEED", "3")
    assert options_given(verbs).seed == 3
    assert options_given(verbs, "--seed", "4").seed == 4


def test_a_file_can_set_switches_lists_and_dashed_names(verbs):
    Path("pyproject.toml").write_text(
        '[tool.prunecli.prune]\nmin-width = 2\nexclude = ["a.*", "b"]\n'
        "verbose = true\noverwrite = false\nflops = 0.3\n"
    )
    assert main(["prune", "m.pt"]) == 0
    given = verbs.calls[-1][1]
    assert given["options"].min_width == 2
    assert given["options"].exclude == ("a.*", "b")
    assert given["overwrite"] is False
    assert str(given["budget"]) == "flops <= 0.3"


def test_a_variable_can_ask_for_json(verbs, monkeypatch, capsys):
    monkeypatch.setenv("PRUNECLI_JSON", "1")
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert main(["prune", "m.pt", "--flop", "0.5"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "USAGE"


def test_a_file_above_the_folder_counts(verbs, monkeypatch):
    Path("pyproject.toml").write_text("[tool.prunecli]\nseed = 9\n")
    Path("a/b").mkdir(parents=True)
    monkeypatch.chdir("a/b")
    Path("m.pt").write_bytes(b"weights")
    assert options_given(verbs).seed == 9


def test_a_file_of_another_project_is_left_alone(verbs):
    Path("pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert options_given(verbs).seed == 0


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[tool.prunecli]\nsede = 1\n", "did you mean 'seed'"),
        ("[tool.prunecli.prune]\nmomentum = 1\n", "keys are the long options"),
        ("[tool.prunecli.prun]\nseed = 1\n", "did you mean 'prune'"),
        ("[tool.prunecli\n", "repair the file"),
    ],
)
def test_a_setting_that_nobody_knows_is_an_error(verbs, capsys, text, hint):
    Path("pyproject.toml").write_text(text)
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 2
    err = capsys.readouterr().err
    assert hint in err
    assert "pyproject.toml" in err
    assert "BAD_CONFIG" in err


@pytest.mark.parametrize("source", ["file", "variable"])
def test_a_bad_value_is_told_with_its_source(verbs, monkeypatch, capsys, source):
    if source == "file":
        Path("pyproject.toml").write_text("[tool.prunecli]\nseed = 'many'\n")
    else:
        monkeypatch.setenv("PRUNECLI_SEED", "many")
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 2
    err = capsys.readouterr().err
    assert ("set in pyproject.toml" if source == "file" else "that of PRUNECLI_SEED") in err


def test_every_option_of_every_verb_can_be_set_in_the_file(tmp_path):
    known = command_options()
    for verb, names in known.items():
        for name, option in names.items():
            path = tmp_path / "pyproject.toml"
            path.write_text(f"[tool.prunecli.{verb}]\n{name.replace('_', '-')} = 1\n")
            if option.trusts is None or not option.trusts(1):
                assert config.load(known, folder=tmp_path)[verb] == {name: "1"}


TRUST = {
    "allow-pickle": "true",
    "arch": "'payload:net'",
    "out": "'elsewhere.pt'",
    "overwrite": "true",
    "report": "'page.html'",
    "plots": "'pictures'",
}


@pytest.mark.parametrize("table", ["tool.prunecli", "tool.prunecli.prune"])
@pytest.mark.parametrize("key", TRUST)
def test_no_file_lets_code_run_or_files_be_written(verbs, capsys, table, key):
    Path("pyproject.toml").write_text(f"[{table}]\n{key} = {TRUST[key]}\n")
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 2
    err = capsys.readouterr().err
    assert "UNTRUSTED_SETTING" in err
    assert f"[{table}] {key}" in err
    assert f"--{key}" in err
    assert not verbs.calls


def test_no_file_names_a_plugin(verbs, capsys):
    Path("pyproject.toml").write_text("[tool.prunecli]\nplugins = ['evil']\n")
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 2
    assert "plugins are installed packages" in capsys.readouterr().err


def test_a_file_may_name_an_architecture_that_is_no_code(verbs):
    Path("pyproject.toml").write_text("[tool.prunecli]\narch = 'resnet18'\n")
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 0
    assert verbs.calls[-1][1]["load"].architecture == "resnet18"


def test_code_beside_a_model_is_not_run(tmp_path):
    (tmp_path / "payload.py").write_text("open('RAN', 'w').close()\n")
    (tmp_path / "pyproject.toml").write_text("[tool.prunecli]\narch = 'payload:net'\n")
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "m.pt")
    words = [sys.executable, "-m", "prunecli", "analyze", "m.pt"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "UNTRUSTED_SETTING" in done.stderr
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    ("variable", "value"), [("PRUNECLI_ALLOW_PICKLE", "1"), ("PRUNECLI_ARCH", "payload:net")]
)
def test_a_variable_that_grants_trust_is_told(verbs, monkeypatch, capsys, variable, value):
    Path("payload.py").touch()
    monkeypatch.setenv(variable, value)
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 0
    load = verbs.calls[-1][1]["load"]
    assert load.allow_pickle or load.architecture == value
    assert f"is taken from {variable}" in capsys.readouterr().err
    assert main(["prune", "m.pt", "--flops", "0.5", "--overwrite", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["warnings"]
    assert variable in told


@pytest.mark.parametrize("variable", ["PRUNECLI_OUT", "PRUNECLI_OVERWRITE"])
def test_what_is_written_is_named_by_a_flag_alone(verbs, monkeypatch, capsys, variable):
    monkeypatch.setenv(variable, "1")
    assert main(["prune", "m.pt", "--flops", "0.5"]) == 2
    err = capsys.readouterr().err
    assert "UNTRUSTED_SETTING" in err
    assert variable in err


@pytest.mark.parametrize("flag", [[], ["--json"], ["-q"]])
def test_a_variable_that_nobody_knows_is_told_with_the_nearest_name(
    verbs, monkeypatch, capsys, flag
):
    monkeypatch.setenv("PRUNECLI_SEDE", "3")
    monkeypatch.setenv("PRUNECLI_SHARED", "a folder")
    assert main(["prune", "m.pt", "--flops", "0.5", *flag]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)["warnings"] if flag == ["--json"] else [captured.err]
    expected = "the variable PRUNECLI_SEDE is no option of any command; did you mean PRUNECLI_SEED?"
    assert "".join(told).count(expected) == 1
    assert "PRUNECLI_SHARED" not in "".join(told)
