"""What launchers say of processes, and what processes of one group tell each other."""

from __future__ import annotations

import json
import threading
import time

import pytest
from torch import distributed

from prunecli.errors import DeviceError, InputError
from prunecli.processes import ALONE, Processes, done_by_main, forget, started
from prunecli.processes.ending import _claimed
from prunecli.processes.group import WAIT_SECONDS, wait_seconds
from prunecli.processes.store import added
from prunecli.processes.waiting import _alive, _wait_for_main

MEMBER = {
    "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ALONE),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "2", "PMI_SIZE": "8"}, ALONE),
        ({"WORLD_SIZE": ""}, ALONE),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, ALONE),
        ({"MASTER_ADDR": "10.0.0.1"}, ALONE),
        (MEMBER, Processes(4, 3)),
    ],
)
def test_a_launcher_says_how_many_processes_there_are(said, expected):
    assert started(said) == expected


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT: not set"),
        ({**MEMBER, "MASTER_PORT": ""}, "MASTER_PORT: not set"),
        ({**MEMBER, "RANK": "4"}, "RANK is 4, and WORLD_SIZE is 4"),
        ({**MEMBER, "RANK": "-1"}, "RANK is -1"),
        ({**MEMBER, "RANK": "first"}, "RANK is 'first', which is no number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0"),
        ({**MEMBER, "LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE is 5"),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_WORLD_SIZE is 2"),
        ({"LOCAL_WORLD_SIZE": "2"}, "WORLD_SIZE is not set"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "WORLD_SIZE is not set"),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, "has started one"),
    ],
)
def test_processes_that_cannot_find_each_other_are_an_error(said, problem):
    with pytest.raises(DeviceError, match=problem) as caught:
        started(said)
    assert caught.value.code == "NO_PROCESS_GROUP"
    assert "torchrun" in str(caught.value.hint)


def test_who_works_alone_hears_of_no_others():
    said = {**MEMBER, "HOME": "/home/me"}
    forget(said)
    assert said == {"HOME": "/home/me"}


def test_shares_are_disjoint_and_leave_nothing_out():
    shares = [Processes(3, index).share(range(8)) for index in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(8))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_time_to_wait_is_a_setting():
    assert wait_seconds({}) == WAIT_SECONDS
    assert wait_seconds({"PRUNECLI_WAIT_SECONDS": "2.5"}) == 2.5
    for wrong in ("soon", "0", "-1", "inf", "nan"):
        with pytest.raises(InputError, match="PRUNECLI_WAIT_SECONDS"):
            wait_seconds({"PRUNECLI_WAIT_SECONDS": wrong})


@pytest.fixture
def store(monkeypatch):
    """A group of one, whose store others of the same process may write to."""
    monkeypatch.setenv("PRUNECLI_WAIT_SECONDS", "1")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_of_two_processes_the_first_one_that_comes_tells(store):
    told, heard = DeviceError("gone", code="GONE"), InputError("late", code="LATE")
    assert _claimed(told, Processes(2, 1)) is None
    assert _claimed(heard, Processes(2, 0)) == told.exit_code == 6


def test_a_main_process_that_is_silent_is_lost(store):
    before = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        _wait_for_main(Processes(2, 1), 1, None)
    assert caught.value.code == "LOST_PROCESS"
    assert 1 <= time.monotonic() - before < 5


def test_work_may_take_longer_than_an_answer(store):
    def work():
        with _alive():
            time.sleep(2.5)
        added("prunecli/done", 1)

    worker = threading.Thread(target=work)
    worker.start()
    _wait_for_main(Processes(2, 1), 1, None)
    worker.join()


def test_alone_the_work_is_simply_done():
    assert done_by_main(ALONE, lambda: json.dumps([1])) == "[1]"
