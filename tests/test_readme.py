"""The README says what is so: its commands parse, its tables are generated."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from readme_sections import README, command, generated, section

from prunecli_cli.main import main, root_command

TEXT = README.read_text(encoding="utf-8")

# Every line of shell in the README that calls prunecli, cut at pipes and substitutions.
CALLS = [
    re.sub(r"^.*?\$\(|\)$", "", part).strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    for part in re.split(r"\||&&", line)
]
PRUNECLI_CALLS = [call for call in CALLS if call.startswith(("prunecli ", ".venv/bin/prunecli "))]


@pytest.mark.parametrize("name", list(generated()))
def test_a_generated_section_is_up_to_date(name):
    """When this fails: python tests/readme_sections.py."""
    assert section(TEXT, name).strip() == generated()[name].strip()


@pytest.mark.parametrize("call", PRUNECLI_CALLS)
def test_a_command_in_the_readme_names_a_verb_and_options_that_exist(call):
    verb, *words = shlex.split(call)[1:]
    known = root_command().commands[verb].params
    options = {name for parameter in known for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options


def test_the_readme_shows_all_verbs_of_the_road():
    shown = {shlex.split(call)[1] for call in PRUNECLI_CALLS}
    assert {"analyze", "prune", "finetune", "export", "evaluate", "demo"} <= shown


@pytest.mark.parametrize("verb", root_command().commands)
def test_the_examples_in_the_help_name_options_that_exist(verb):
    entry = root_command().commands[verb]
    examples = re.findall(r"\$ prunecli (.*)", entry.help or "")
    options = {
        name for parameter in entry.params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    assert examples
    for example in examples:
        first, *words = shlex.split(example)
        assert first == verb
        assert {word for word in words if word.startswith("-")} <= options


def test_the_settings_and_gates_that_the_readme_names_exist():
    options = {
        name
        for entry in root_command().commands.values()
        for parameter in entry.params
        for name in parameter.opts
    }
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    named = set(re.findall(r"`(--[a-z-]+)", prose))
    assert {"--min-accuracy", "--max-drop", "--min-speedup", "--out"} <= named
    assert named <= options


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_the_python_in_the_readme_runs(block, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("name", ["demo-command", "test-command"])
def test_the_two_commands_are_one_line_each_and_bring_their_own_environment(name):
    assert command(TEXT, name).startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_continuous_integration_runs_the_test_command_of_the_readme():
    script = README.parent / ".ci" / "run"
    shown = subprocess.run([script, "--print"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == command(TEXT, "test-command")


def test_methods_prints_the_tables_of_the_readme(capsys):
    assert main(["methods", "signal", "--markdown"]) == 0
    assert capsys.readouterr().out.strip() in section(TEXT, "methods")
    assert main(["methods", "sginal"]) == 2
    assert "did you mean 'signal'" in capsys.readouterr().err
