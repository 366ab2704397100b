"""`prune --sweep`, `--signal auto` and `--plots` at the command line, against a fake verbs."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from prunecli.options import PruneOptions
from prunecli_cli.main import main
from prunecli_cli.tables import view
from tests.support import fake_verbs
from tests.support.command_line import envelope, run
from tests.support.fake_verbs import READ

SWEEP = ("prune", "m.pt", "--sweep", "flops=0.5:0.9:0.4", "--data", "digits")
KEYS = {
    "architecture", "kind", "cost", "dense", "trials", "images", "measured", "repair", "suggested",
    "seconds", "table", "pictures", "next_command", "page", "preparation",
}  # fmt: skip


def shown(report) -> str:
    console = Console(width=80, file=io.StringIO(), highlight=False)
    for part in view(report, rows=None):
        console.print(part)
    return console.file.getvalue()


def test_a_sweep_hands_signals_and_allocations_on_and_writes_no_network(verbs, capsys, tmp_path):
    words = (*SWEEP, "--signal", "l1,taylor", "--allocation", "uniform,greedy", "--plots", "p")
    code, out, _ = run(capsys, *words, "-o", "t.csv", "--repair", "bn")
    assert code == 0
    ((verb, called),) = verbs.calls
    assert verb == "sweep"
    assert called["signals"] == ("l1", "taylor")
    assert called["allocations"] == ("uniform", "greedy")
    assert [str(budget) for budget in called["sweep"].budgets] == ["flops <= 0.9", "flops <= 0.5"]
    assert (called["table"], called["plots"]) == (Path("t.csv"), Path("p"))
    assert called["options"].repair == ("bn",)
    assert "taylor" in out
    assert all(path.name in READ for path in tmp_path.glob("*.pt"))


def test_a_sweep_takes_candidates_where_auto_is_one_of_its_signals(verbs, capsys):
    words = (*SWEEP, "--signal", "l1,auto", "--candidates", "l2,l1")
    assert run(capsys, *words)[0] == 0
    ((_, called),) = verbs.calls
    assert called["signals"] == ("l1", "auto")
    assert called["options"].candidates == ("l2", "l1")


def test_a_sweep_takes_no_defaults_of_a_method_that_it_leaves_out(verbs, capsys):
    Path("pyproject.toml").write_text('[tool.prunecli.prune]\nmethod = "iterative"\n')
    assert run(capsys, *SWEEP)[0] == 0
    ((_, called),) = verbs.calls
    assert called["signals"] == ("l1",)
    assert called["options"] == PruneOptions()


def test_what_was_typed_is_judged_by_the_settings_that_are_left(verbs, capsys):
    Path("pyproject.toml").write_text('[tool.prunecli.prune]\ngranularity = "2:4"\nalign = 8\n')
    assert run(capsys, *SWEEP, "--allocation", "greedy")[0] == 0
    ((_, called),) = verbs.calls
    assert called["allocations"] == ("greedy",)
    assert called["options"] == PruneOptions(align=8)


def test_the_envelope_of_a_sweep_has_exactly_the_promised_keys(verbs, capsys):
    code, found = envelope(capsys, *SWEEP)
    assert code == 0
    assert found["command"] == "prune"
    assert set(found["data"]) == KEYS
    row = found["data"]["trials"][0]
    assert set(row) == {
        "signal", "allocation", "seed", "budget", "kept", "score", "repaired", "seconds", "problem"
    }  # fmt: skip
    assert set(row["score"]) == {"loss", "accuracy", "calibrated", "images"}


def test_the_table_of_a_sweep_fits_and_has_every_row(verbs):
    text = shown(fake_verbs.sweep_report(next_command="prunecli prune m.pt --flops 0.9"))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("l1 ") == 3
    assert "not cut" in text
    assert "the lowest reachable is 0.132" in text
    assert "prunecli prune m.pt --flops 0.9" in text


def test_a_table_with_repairs_and_several_allocations_still_fits():
    score = fake_verbs.DENSE.score
    trials = tuple(
        fake_verbs.trial("mean-replacement", 0.9, 0.5, allocation=rule, repaired=score)
        for rule in ("uniform", "greedy")
    )
    report = dataclasses.replace(
        fake_verbs.sweep_report(), trials=trials, repair=("bn", "bias", "lstsq")
    )
    lines = shown(report).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert sum("92.0" in line and "uniform" in line for line in lines) == 1


def test_the_table_of_candidates_marks_the_best_and_shows_random():
    report = dataclasses.replace(fake_verbs.prune_report(None), candidates=fake_verbs.SEARCH)
    text = shown(report)
    assert "taylor *" in text
    assert "random" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_candidates_are_handed_on(verbs, capsys):
    words = ("--signal", "auto", "--candidates", "l1,taylor", "--data", "digits")
    code, _, _ = run(capsys, "prune", "m.pt", "--flops", "0.5", *words)
    assert code == 0
    options = verbs.calls[0][1]["options"]
    assert (options.signal, options.candidates) == ("auto", ("l1", "taylor"))


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        ((*SWEEP, "--flops", "0.5"), "OPTION_WITHOUT_EFFECT", "leave --flops out"),
        ((*SWEEP, "--dry-run"), "OPTION_WITHOUT_EFFECT", "leave --dry-run out"),
        (("prune", "m.pt", "--sweep", "flops=0.3:0.9"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "0.3:0.9:0.1"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "flops=a:b:c"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "flops=0.3:0.9:0"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "flops=0.3:0.9:-0.1"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "flops=0.3:1.0:0.1"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "flops=nan:0.9:0.1"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "flops=0.1:0.9:0.001"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--sweep", "speed=0.1:0.9:0.1"), "BAD_SWEEP", "first:last:step"),
        (("prune", "m.pt", "--flops", "0.5", "--signal", "l1,l2"), "USAGE", "--candidates l1,l2"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_hint(verbs, capsys, words, code, hint):
    status, found = envelope(capsys, *words)
    assert status == 2
    assert found["error"]["code"] == code
    assert hint in found["error"]["hint"]
    assert not verbs.calls


@pytest.mark.parametrize(
    "words",
    [
        ("analyze", "m.pt"),
        ("analyze", "--data", "digits"),
        ("prune", "m.pt", "--flops", "0.5"),
        SWEEP,
        ("finetune", "m.pt", "--data", "digits"),
        ("export", "m.pt"),
    ],
)
def test_every_verb_takes_a_page_and_a_folder_of_pictures(verbs, capsys, words):
    assert main([*words, "--report", "p.html", "--plots", "pictures"]) == 0
    (_, called), *_ = verbs.calls
    assert (called["page"], called["plots"]) == (Path("p.html"), Path("pictures"))


def test_a_budget_in_the_settings_is_no_contradiction_to_a_sweep(verbs, capsys, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.prunecli.prune]\nflops = 0.5\n")
    assert main([*SWEEP]) == 0
    assert verbs.calls[0][0] == "sweep"


def test_what_a_search_costs_is_shown_in_a_log_before_it_starts():
    from prunecli.progress import Step
    from prunecli_cli.bars import lines

    said: list[str] = []
    with lines(said.append) as progress:
        progress(Step("try 9 signals", 0, 9, {"images": 143.0, "about": "12 s"}))
    assert said == ["try 9 signals images 143 about 12 s"]
