"""The command line is made from the options: every declared one is there, in short help or long."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from prunecli.options import FinetuneOptions, PruneOptions
from prunecli.options.declare import declared
from prunecli_cli.main import command_options, root_command
from prunecli_cli.signature import SHOWN_EXAMPLES
from tests.support.command_line import envelope, run

MOST_NEEDED = {
    "prune": {
        "--flops", "--params", "--sparsity", "--latency", "--data", "--signal", "--allocation",
        "--repair", "--method", "--out", "--overwrite", "--report", "--dry-run",
    },
    "finetune": {"--data", "--epochs", "--lr", "--batch-size", "--teacher", "--out", "--resume"},
    "analyze": {"--data", "--model", "--oracle", "--reduce", "--report"},
}  # fmt: skip


def options_in(text: str) -> set[str]:
    """Return the long options that a help lists, without those that its prose names."""
    return set(re.findall(r"^│ (?:\* {2}| {3})?(--[a-z-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("kind", [PruneOptions, FinetuneOptions])
def test_every_declared_option_is_on_the_command_line(kind):
    verb = kind.__name__.removesuffix("Options").lower()
    assert {known.name for known in declared(kind)} <= command_options()[verb].keys()


@pytest.mark.parametrize("verb", root_command().commands)
def test_no_two_options_of_a_verb_share_a_name_or_a_flag(verb):
    parameters = root_command().commands[verb].params
    flags = [flag for each in parameters for flag in (*each.opts, *each.secondary_opts)]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("verb", MOST_NEEDED)
def test_the_short_help_shows_what_most_people_need_and_names_the_long_one(capsys, verb):
    short, long = (run(capsys, verb, word)[1] for word in ("--help", "--help-all"))
    every = {
        parameter.opts[0]
        for parameter in root_command().commands[verb].params
        if parameter.param_type_name == "option"
    }
    assert every | {"--help"} == options_in(long)
    assert MOST_NEEDED[verb] <= options_in(short)
    assert len(options_in(short)) <= 20
    left_out = len(options_in(long)) - len(options_in(short))
    assert f"{left_out} more options: prunecli {verb} --help-all" in short
    assert "more options" not in long
    assert short.count("$ prunecli") == SHOWN_EXAMPLES < long.count("$ prunecli")


def test_a_verb_with_few_options_has_one_help(capsys):
    code, text, _ = run(capsys, "env", "--help")
    assert code == 0
    assert "--help-all" not in text


def test_asking_for_all_options_is_no_setting():
    assert all("help_all" not in names for names in command_options().values())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("prune m.pt --flops 0.5 --threads 2", "--latency"),
        ("prune m.pt --flops 0.5 --latency-batch 2", "--latency"),
        ("prune m.pt --flops 0.5 --candidates l1", "--signal auto"),
        ("prune m.pt --flops 0.5 --importance probe", "--allocation inverse-importance"),
        ("prune m.pt --flops 0.5 --dead-threshold 0.1", "--dead"),
        ("prune m.pt --sparsity 0.5 --granularity weight --align 8", "leave --align out"),
        ("prune m.pt --granularity 2:4 --allocation lamp", "leave --allocation out"),
        ("prune m.pt --sweep flops=0.5:0.9:0.4 --data d --method iterative", "leave --method out"),
        ("prune m.pt --flops 0.5 --arch-arg a=1", "--arch NAME"),
        ("finetune m.pt --data d --sparsity-every 5", "--sparsity 0.9"),
        ("finetune m.pt --data d --teacher none --temperature 2", "--teacher MODEL"),
        ("finetune m.pt --data d --teacher none --max-drop 1%", "--teacher MODEL"),
        ("prune m.pt --flops 0.5 --data d --alpha 0.5", "--epochs 10"),
        (
            "prune m.pt --flops 0.5 --data d --epochs 2 --teacher none --alpha 0.5",
            "--teacher MODEL",
        ),
        ("prune m.pt --flops 0.5 --data d --method iterative --alpha 0.5", "--teacher MODEL"),
        ("finetune m.pt --data d --continue-record", "--record-learnability FILE.parquet"),
        ("export m.pt --no-benchmark --runs 9", "leave --no-benchmark out"),
        ("export m.pt --no-benchmark --against d.pt", "leave --no-benchmark out"),
        ("evaluate m.pt --data d --min-agreement 0.9", "--against dense.pt"),
    ],
)
def test_an_option_that_nothing_follows_is_refused_before_any_work(verbs, capsys, words, hint):
    code, found = envelope(capsys, *shlex.split(words))
    assert code == 2
    assert found["error"]["code"] == "OPTION_WITHOUT_EFFECT"
    assert hint in found["error"]["hint"]
    assert not verbs.calls


def test_a_setting_that_nothing_follows_is_left_at_its_default(verbs, capsys):
    Path("pyproject.toml").write_text("[tool.prunecli.prune]\nupdates = 3\nalign = 8\n")
    assert run(capsys, "prune", "m.pt", "--flops", "0.5")[0] == 0
    words = ("prune", "m.pt", "--granularity", "weight", "--sparsity", "0.5", "-o", "a.pt")
    assert run(capsys, *words)[0] == 0
    (_, channels), (_, weights) = verbs.calls
    assert channels["options"] == PruneOptions(align=8)
    assert weights["options"] == PruneOptions(granularity="weight")


@pytest.mark.parametrize(
    ("settings", "words", "idle"),
    [
        ("[tool.prunecli.export]\nmin-speedup = 9\nagainst = 'd.pt'\n",
         ("export", "m.pt", "--no-benchmark"), "against"),
        ("[tool.prunecli.evaluate]\nmax-drop = '1%'\n",
         ("evaluate", "m.pt", "--data", "d"), None),
        ("[tool.prunecli.finetune]\nmax-drop = '1%'\ncontinue-record = true\n",
         ("finetune", "m.pt", "--data", "d", "--teacher", "none"), "continue_record"),
        ("[tool.prunecli.prune]\nflops = '0.5'\ndry-run = true\n",
         ("prune", "m.pt", "--sweep", "flops=0.5:0.9:0.4", "--data", "d"), None),
    ],
)  # fmt: skip
def test_settings_of_the_command_line_alone_are_left_too(verbs, capsys, settings, words, idle):
    Path("pyproject.toml").write_text(settings)
    assert run(capsys, *words)[0] == 0
    ((_, called),) = verbs.calls
    assert idle is None or not called[idle]


def test_an_option_with_another_flag_than_its_field_is_set_by_its_flag(verbs, capsys, monkeypatch):
    Path("pyproject.toml").write_text(
        '[tool.prunecli.analyze]\nembedding = "autoencoder"\nembedding-epochs = 7\n'
    )
    assert run(capsys, "analyze", "digits")[0] == 0
    monkeypatch.setenv("PRUNECLI_EMBEDDING_EPOCHS", "9")
    assert run(capsys, "analyze", "digits")[0] == 0
    found = [given["options"].complexity.epochs for _, given in verbs.calls]
    assert found == [7, 9]
