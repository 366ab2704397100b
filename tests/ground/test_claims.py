"""One run to an output, and nothing left of runs that are dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from prunecli.atomic import atomic_write, check_output
from prunecli.errors import InputError
from prunecli.lifetime import claims
from prunecli.lifetime.claims import claiming

OTHER = """
import sys, time
from pathlib import Path
from prunecli.atomic import atomic_write, check_output
from prunecli.lifetime.claims import claiming

@claiming
def work(path):
    check_output(path, inputs=[], overwrite=True)
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        print("working", flush=True)
        time.sleep(60)

work(Path(sys.argv[1]))
"""


@pytest.fixture
def other(tmp_path):
    """Start another run that is about to write `a.txt`."""
    words = [sys.executable, "-c", OTHER, str(tmp_path / "a.txt")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        yield process
        process.kill()
    claims._cleaned.clear()


@claiming
def work(path, *, overwrite=True):
    check_output(path, inputs=[], overwrite=overwrite)
    with atomic_write(path) as temporary:
        temporary.write_text("mine")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_run_on_an_output_is_told_at_once(tmp_path, other):
    start = time.monotonic()
    with pytest.raises(InputError, match="another run") as caught:
        work(tmp_path / "a.txt")
    assert time.monotonic() - start < 5
    assert caught.value.code == "OUTPUT_BUSY"
    assert str(other.pid) in caught.value.hint
    assert "--out" in caught.value.hint
    work(tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "mine"


def test_another_name_of_the_same_output_is_the_same_output(tmp_path, other):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    with pytest.raises(InputError, match="another run"):
        work(tmp_path / "link.txt")
    assert other.poll() is None


def test_what_a_killed_run_leaves_is_removed_by_the_next(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert len(names(tmp_path)) == 2  # a temporary file and a lock
    claims._cleaned.clear()
    work(tmp_path / "a.txt")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_what_living_runs_and_other_programs_have_is_left_alone(tmp_path, other):
    foreign = (
        ".a.txt.00000000-99999999-00000000.tmp",  # of another machine
        f".a.txt.{claims._host()}-1-00000000.tmp",  # of a process that lives
        ".a.tmp",
        ".other.lock",
        f"a.txt.{claims._host()}-99999999-00000000.tmp",
    )
    for name in foreign:
        (tmp_path / name).write_text("")
    dead = tmp_path / f".x.{claims._host()}-99999999-00000000.tmp"
    dead.write_text("")
    claims._cleaned.clear()
    before = set(names(tmp_path)) - {dead.name}
    work(tmp_path / "b.txt")
    assert set(names(tmp_path)) == {*before, "b.txt"}
    assert other.poll() is None


def test_a_claim_ends_with_the_verb_and_when_it_fails(tmp_path):
    work(tmp_path / "a.txt")
    with pytest.raises(InputError, match="exists"):
        work(tmp_path / "a.txt", overwrite=False)
    work(tmp_path / "a.txt")
    assert names(tmp_path) == ["a.txt"]


def test_processes_that_train_together_do_not_stop_each_other(tmp_path, other, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    work(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert other.poll() is None


def test_a_library_call_outside_of_a_verb_claims_nothing(tmp_path):
    check_output(tmp_path / "a.txt", inputs=[], overwrite=False)
    assert names(tmp_path) == []


def test_a_folder_that_takes_no_lock_is_told_where_it_is_written_to(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(InputError) as caught:
        work(tmp_path / "a.txt")
    assert caught.value.code == "UNWRITABLE_OUTPUT"
