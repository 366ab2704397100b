"""Every failure: its exit code, its words on stderr, its envelope on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from prunecli import errors
from prunecli.checkpoint.writing import _WRITERS
from prunecli_cli.main import EXIT_CODES, main
from prunecli_cli.parsing import CHECKPOINTS

WORDS = ("prune", "m.pt", "--flops", "0.5")


KINDS = sorted(
    (*errors.PruneError.__subclasses__(), errors.TerminatedRunError),
    key=lambda kind: kind.exit_code,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_error_has_its_exit_code_words_and_envelope(verbs, capsys, kind):
    verbs.raises = kind("it [bold]failed[/]", code="SOME_CODE", where="layer1", hint="try this")
    assert main(WORDS) == kind.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: it [bold]failed[/]" in err
    assert "where: layer1" in err
    assert "hint: try this" in err
    assert main([*WORDS, "--json"]) == kind.exit_code
    found = json.loads(capsys.readouterr().out)
    assert found == {
        "schema_version": 1,
        "command": "prune",
        "ok": False,
        "error": {
            "code": "SOME_CODE",
            "message": "it [bold]failed[/]",
            "where": "layer1",
            "hint": "try this",
        },
    }
    assert not Path("m.pruned.pt").exists()
    assert not Path(".prunecli").exists()


def test_the_exit_codes_are_those_of_the_errors():
    assert set(EXIT_CODES) == {0, *(kind.exit_code for kind in KINDS)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune", "m.pt", "--flop", "0.5"], "--flop"),
        (["prune", "m.pt", "--seed", "x"], "--seed"),
        (["prune", "m.pt", "--flops"], "--flops"),
        (["prune", "m.pt", "n.pt", "--flops", "0.5"], "n.pt"),
        (["finetune", "m.pt"], "--data"),
        (["prun", "m.pt"], "prun"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_usage_errors_speak_as_all_others_do(verbs, capsys, words, message):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "--help'" in err
    assert main([words[0], "--json", *words[1:]]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["error"]["code"]) == (False, "USAGE")
    assert found["command"] == (words[0] if words[0] in {"prune", "finetune"} else None)


@pytest.mark.parametrize("words", [WORDS, ("finetune", "m.pt", "--data", "d")])
@pytest.mark.parametrize("name", ["slim.txt", "slim", "slim.onnx"])
def test_an_output_of_no_known_format_is_refused_before_any_work(verbs, capsys, words, name):
    assert main([*words, "-o", name]) == 2
    err = capsys.readouterr().err
    assert "UNWRITABLE_OUTPUT" in err
    assert ".safetensors" in err
    assert not verbs.calls


def test_the_formats_of_the_command_line_are_those_that_can_be_written():
    assert set(CHECKPOINTS) == set(_WRITERS)


def test_no_verb_at_all_shows_the_help_and_exits_2(capsys):
    assert main([]) == 2
    assert "Usage: prunecli" in capsys.readouterr().out


def test_ctrl_c_exits_130_with_an_envelope(verbs, capsys):
    verbs.raises = KeyboardInterrupt()
    assert main([*WORDS, "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "INTERRUPTED"


def test_ctrl_c_while_nothing_was_begun_exits_130(verbs, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("prunecli_cli.prune.make_budget", stop)
    assert main(WORDS) == 130
    assert "error: interrupted" in capsys.readouterr().err


def test_what_an_interrupted_run_saved_is_said(verbs, capsys):
    verbs.raises = errors.InterruptedRunError(
        "stopped in epoch 2", code="INTERRUPTED", hint="go on with --resume"
    )
    assert main(["finetune", "m.pt", "--data", "d"]) == 130
    assert "go on with --resume" in capsys.readouterr().err


def test_a_fault_of_prunecli_is_told_as_one_and_not_as_a_traceback(verbs, capsys):
    verbs.raises = IndexError("list index out of range")
    assert main(WORDS) == 2
    err = capsys.readouterr().err
    assert "internal error: IndexError: list index out of range" in err
    assert "report" in err
    assert "Traceback" not in err
    assert main([*WORDS, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "INTERNAL_ERROR"


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_the_traceback_of_a_fault_can_be_had(verbs, capsys, monkeypatch, how):
    verbs.raises = IndexError("list index out of range")
    if how == "variable":
        monkeypatch.setenv("PRUNECLI_TRACEBACK", "1")
    assert main([*WORDS, *(["--verbose"] if how == "flag" else [])]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "fake_verbs.py" in err


def test_files_and_memory_that_give_out_are_no_internal_errors(verbs, capsys):
    verbs.raises = PermissionError(13, "Permission denied", "/root/out.pt")
    assert main(WORDS) == 2
    err = capsys.readouterr().err
    assert "Permission denied" in err
    assert "/root/out.pt" in err
    assert "internal" not in err
    verbs.raises = MemoryError()
    assert main(WORDS) == 2
    assert "not enough memory" in capsys.readouterr().err


def test_talk_that_nobody_hears_does_not_stop_the_work(verbs, capsys, monkeypatch):
    class Gone:
        encoding = "utf-8"

        def write(self, _):
            raise BrokenPipeError

        flush = isatty = lambda _: False

    monkeypatch.setattr(sys, "stderr", Gone())
    verbs.warnings = ("one",)
    assert main([*WORDS, "-q"]) == 0
    assert capsys.readouterr().out == "m.pruned.pt\n"
