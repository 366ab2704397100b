"""Completion as shells ask for it, through the variables of the parser's own protocol."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from prunecli.architectures.registry import ARCHITECTURES
from prunecli.options import AnalyzeOptions, ExportOptions, FinetuneOptions, PruneOptions
from prunecli.options.declare import declared
from prunecli.options.names import REGISTERED
from prunecli_cli.guide import TOPICS
from prunecli_cli.main import root_command

RUN = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules or "numpy" in sys.modules, file=sys.stderr))
from prunecli_cli.main import run
run()
"""

VERB_OF = {
    "prune": PruneOptions,
    "finetune": FinetuneOptions,
    "analyze": AnalyzeOptions,
    "export": ExportOptions,
}


def asked(shell, line):
    """Return the variables by which a shell asks for what may follow a line."""
    words = line.split(" ")
    if shell == "bash":
        return {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    return {"_TYPER_COMPLETE_ARGS": line, **fish}


def complete(shell, line, folder):
    """Return what is offered, and whether torch or numpy was imported for it."""
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "_PRUNECLI_COMPLETE": f"complete_{shell}",
            **asked(shell, line),
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "False"
    return done.stdout


OFFERED = {
    "prunecli fi": ["finetune"],
    "prunecli prune --signal tay": ["taylor", "taylor-share", "taylor-2019", "taylor-flops"],
    "prunecli prune --signal l1,bn": ["l1,bn-gamma"],
    "prunecli prune --candidates l1,fisher,ran": ["l1,fisher,random"],
    "prunecli prune --repair bn,ls": ["bn,lstsq"],
    "prunecli prune --method ite": ["iterative"],
    "prunecli prune --arch cifar_resnet2": ["cifar_resnet20"],
    "prunecli export --device cpu,cu": ["cpu,cuda"],
    "prunecli finetune --optimizer ad": ["adam", "adamw"],
    "prunecli analyze --embedding autoencoder+ts": ["autoencoder+tsne"],
    "prunecli evaluate --data dig": ["digits"],
    "prunecli evaluate --split hel": ["held_out"],
    "prunecli methods regu": ["regularizer"],
    "prunecli guide bud": ["budgets"],
}


@pytest.mark.parametrize("line", OFFERED)
def test_bash_is_offered_the_names_that_fit(tmp_path, line):
    assert complete("bash", line, tmp_path).split() == OFFERED[line]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize("line", ["prunecli prune --signal tay", "prunecli prune --arch resnet5"])
def test_the_other_shells_are_offered_the_same(tmp_path, shell, line):
    expected = complete("bash", line, tmp_path).split()
    assert expected
    found = complete(shell, line, tmp_path)
    assert all(name in found for name in expected)
    assert "l1" not in found


def test_folders_beside_are_offered_as_data(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").touch()
    (tmp_path / ".hidden").touch()
    assert complete("bash", "prunecli evaluate --data ", tmp_path).split() == [
        "digits", "images/", "labels.csv",
    ]  # fmt: skip


def offers(verb, name):
    """Return what an option completes an empty word to, in this process."""
    command = root_command().commands[verb]
    parameter = next(each for each in command.params if each.name == name)
    context = command.context_class(command)
    return [item.value for item in parameter.shell_complete(context, "")]


@pytest.mark.parametrize("verb", VERB_OF)
def test_every_option_that_takes_names_offers_all_of_them(verb):
    options = [known for known in declared(VERB_OF[verb]) if known.option.names]
    assert options
    for known in options:
        kind = known.option.names.kind_of({})
        assert set(REGISTERED[kind]) <= set(offers(verb, known.name)), known.name


@pytest.mark.parametrize("verb", ["prune", "finetune", "evaluate", "export", "analyze"])
def test_every_architecture_is_offered(verb):
    pytest.importorskip("timm")
    found = offers(verb, "arch")
    assert set(ARCHITECTURES.names()) < set(found)
    assert "timm/resnet50" in found


def test_every_guide_and_every_kind_of_method_is_offered():
    assert set(offers("guide", "name")) == {name for topic in TOPICS.values() for name in topic}
    assert set(REGISTERED) < set(offers("methods", "kind"))
