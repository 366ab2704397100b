"""The command in several processes: one speaks and writes, all end, any number goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from prunecli.artefacts.provenance import read
from prunecli.training.session import Session
from prunecli.training.state import STATE_FILE
from tests.support.command_line import envelope, run
from tests.support.samples import VGG
from tests.support.two_processes import (
    ON_CPU,
    TORCHRUN,
    begin,
    end,
    free_port,
    member,
    wait_for_epoch,
)

MODEL = str(VGG)
TRAINED = ("--data", "digits", "--limit", "320", "--batch-size", "64", "--amp", "no")

# --- what is known before any process has met another --------------------------------------------


@pytest.fixture(autouse=True)
def _usual_signals():
    """A process that tells of an error is not interrupted any more: this one goes on."""
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in usual.items():
        signal.signal(number, handler)


def in_group(monkeypatch, rank, count=2):
    for name, value in member(rank, count, port=free_port()).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("verb", ["finetune", "evaluate", "prune"])
def test_a_world_that_nobody_can_find_is_an_error_before_the_work(
    capsys, monkeypatch, tmp_path, verb
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = {"prune": ("--flops", "0.5")}.get(verb, ("--data", "digits"))
    code, answer = envelope(capsys, verb, MODEL, *words)
    assert code == 6
    assert answer["error"]["code"] == "NO_PROCESS_GROUP"
    assert "torchrun" in answer["error"]["hint"]
    assert not list(tmp_path.iterdir())


def test_a_reservation_alone_starts_no_processes(capsys, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert run(capsys, "evaluate", MODEL, "--data", "digits", "--limit", "40", "-q")[0] == 0


def test_what_is_not_split_is_done_by_the_first_process_and_told(capsys, monkeypatch):
    words = ("analyze", MODEL, "--json")
    in_group(monkeypatch, 1)
    assert run(capsys, *words) == (0, "", "")
    in_group(monkeypatch, 0)
    code, out, _ = run(capsys, *words)
    (warning,) = json.loads(out)["warnings"]
    assert (code, warning) == (
        0, "this command is not split over processes: the first of 2 does it alone",
    )  # fmt: skip


def test_an_error_in_the_options_is_told_by_the_first_process(capsys, monkeypatch):
    monkeypatch.setattr("prunecli.processes.ending.UNMET_SECONDS", 0.0)
    words = ("finetune", "model.pt", "--epochs", "many")
    in_group(monkeypatch, 1)
    assert run(capsys, *words) == (2, "", "")
    in_group(monkeypatch, 0)
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "--epochs" in err


# --- real processes ------------------------------------------------------------------------------


def group(words, folder, count=2, **settings):
    """Start the command in several processes, as a cluster would; `words` may differ by process."""
    port = free_port()
    each = words if isinstance(words, list) else [words] * count
    return [
        begin(own, folder, {**member(rank, count, port=port), **settings})
        for rank, own in enumerate(each)
    ]


@pytest.mark.slow
def test_torchrun_cuts_once_trains_together_and_writes_once(tmp_path, capsys, monkeypatch):
    words = ("prune", MODEL, "--flops", "0.5", "--signal", "taylor", *TRAINED, "--epochs", "2")
    command = [*TORCHRUN, "-m", "--", "prunecli", *map(str, words), "--report", "cut.html"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ON_CPU, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "digits_vgg.pruned.pt\n"
    assert done.stderr.count("written ") == 1
    assert "2 processes with" in done.stderr
    assert "2 processes with" in (tmp_path / "cut.html").read_text()
    rows = (tmp_path / "digits_vgg.pruned.run" / "log.jsonl").read_text().splitlines()
    shares = [json.loads(row)["shares"] for row in rows]
    assert [sum(share) for share in shares] == [320, 320]
    assert [max(share) - min(share) for share in shares] == [0, 0]
    last = json.loads((tmp_path / ".prunecli" / "last.json").read_text())
    assert [each["output"] for each in last["outputs"]] == ["digits_vgg.pruned.pt"]

    monkeypatch.chdir(tmp_path)
    code, alone = envelope(capsys, *map(str, words), "-o", "alone.pt")
    assert code == 0
    ours, theirs = (read(tmp_path / name).checkpoint for name in (
        "alone.pt", "digits_vgg.pruned.pt"
    ))  # fmt: skip
    assert ours.plan == theirs.plan
    together = [json.loads(row)["accuracy"] for row in rows]
    course = [point["accuracy"] for point in alone["data"]["learning"]["course"]]
    assert together == pytest.approx(course, abs=0.05)  # batch norm sees half of every batch


@pytest.mark.slow
def test_a_run_goes_on_in_two_processes_and_in_one_again_after_one_was_killed(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = (
        "finetune", MODEL, "--data", "digits", "--limit", "320", "--batch-size", "16", "--amp",
        "no", "--epochs", "30", "--teacher", "none", "-o", "t.pt",
    )  # fmt: skip
    log = tmp_path / "t.run" / "log.jsonl"
    write = Session._write_logs

    def stopping(session):
        write(session)
        if len(session.reports) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_write_logs", stopping)
        assert run(capsys, *words)[0] == 130
    alone = 2

    main_one, other = group((*words, "--resume"), tmp_path)
    wait_for_epoch(log, alone + 2, main_one, other)
    other.kill()
    killed = time.monotonic()
    code, out, err = end(main_one)
    assert time.monotonic() - killed < 20
    assert (code, out) == (6, "")
    assert err.count("error: another one of the 2 processes has ended") == 1
    assert "run the same command with --resume" in err
    assert end(other)[1:] == ("", "")
    assert (tmp_path / "t.run" / STATE_FILE).exists()
    together = len(log.read_text().splitlines())

    code, answer = envelope(capsys, *words, "--resume")
    assert code == 0
    epochs = answer["data"]["epochs"]
    assert [each["epoch"] for each in epochs] == list(range(1, 31))
    assert [len(each["shares"]) for each in epochs[alone:together]] == [2] * (together - alone)
    assert [len(each["shares"]) for each in epochs[:alone] + epochs[together:]] == [0] * (
        30 - together + alone
    )
    assert epochs[-1]["accuracy"] > 0.9


@pytest.mark.slow
def test_an_error_of_one_process_is_told_once_and_ends_all(tmp_path):
    words = ("evaluate", MODEL, "--data")
    main_one, other = group([(*words, "digits"), (*words, "nowhere")], tmp_path)
    code, out, err = end(main_one)
    assert (code, out) == (2, "")
    assert "error" not in err
    code, out, err = end(other)
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert "DATA_NOT_FOUND" in err


@pytest.mark.slow
def test_a_group_that_does_not_form_ends_in_the_time_that_was_set(tmp_path):
    environment = {**member(0, 2, port=free_port()), "PRUNECLI_WAIT_SECONDS": "2"}
    process = begin(("finetune", MODEL, *TRAINED), tmp_path, environment)
    code, out, err = end(process, timeout=60)
    assert (code, out) == (6, "")
    assert "MISSING_PROCESSES" in err
    assert "has waited for the other 1 for 2 s" in err
    assert not list(tmp_path.iterdir())
