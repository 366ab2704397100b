"""A little of what `tests/benchmarks/mutations.py` and `interruptions.py` do at length."""

from __future__ import annotations

import resource
import signal

import pytest

from tests.benchmarks.interruptions import CODES, SCARCE, is_fault, stopped, without
from tests.benchmarks.mutations import run
from tests.support.forked import forked
from tests.support.mutations import FORMATS, mutated


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_refused_or_read_within_its_memory(name):
    counts, slowest = run(name, first=10**6, count=12)
    assert counts["fault"] == 0
    assert counts["read"] + counts["refused"] == 12
    assert slowest < 20


def test_the_damage_is_damage_and_the_same_for_the_same_seed():
    content = bytes(range(256)) * 20
    found = [mutated(content, seed) for seed in range(50)]
    assert found == [mutated(content, seed) for seed in range(50)]
    assert sum(data != content for data in found) > 45
    assert len(set(found)) > 45


@pytest.mark.parametrize("number", CODES)
def test_a_verb_that_is_stopped_leaves_whole_files(number):
    moments, *_, torn, faults = stopped("prune weights", number, 2)
    assert (moments, torn, faults) == (2, 0, 0)


@pytest.mark.parametrize("what", SCARCE)
def test_a_verb_without_what_it_needs_ends_with_an_error_of_its_own(what):
    *_, torn, faults = without("prune weights", what)
    assert (torn, faults) == (0, 0)


def test_a_traceback_and_an_unknown_end_are_faults(tmp_path):
    def fail():
        raise KeyError

    log = tmp_path / "log"
    assert is_fault(forked(fail, log=log), {0})
    assert is_fault(forked(lambda: print("INTERNAL_ERROR", flush=True), log=log), {0})
    assert not is_fault(forked(lambda: 4, log=log), {0, 4})
    killed = forked(signal.pause, log=log, after=0.1)
    assert killed.code == -signal.SIGKILL
    full = forked(lambda: (tmp_path / "x").write_bytes(bytes(99_999)) and 0, log=log,
                  limits={resource.RLIMIT_FSIZE: 9_999})  # fmt: skip
    assert full.code == 99
    assert "File too large" in full.said
