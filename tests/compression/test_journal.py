"""What is kept of a search that was stopped."""

from __future__ import annotations

import dataclasses

import pytest

from prunecli.compression.journal import open_journal
from prunecli.errors import InputError
from prunecli.report import Attempt

ATTEMPT = Attempt(
    strength=0.5, budget="--flops 0.5", file="a.pt", kept={"flops": 0.5}, bytes=10, epochs=1,
    seconds=2.0, ok=True, drop=0.01,
)  # fmt: skip
ASKED = {"data": "images", "wishes": {"speedup": 2.0}}


def test_a_search_goes_on_with_what_it_had(tmp_path):
    journal = open_journal(tmp_path, ASKED, resume=False, overwrite=False)
    assert not list(tmp_path.iterdir())  # nothing is written before there is anything to keep
    full = dataclasses.replace(
        journal, attempts=(ATTEMPT,), scale={"latency": 0.9}, dense={"latency": None}
    )
    full.write()
    assert open_journal(tmp_path, ASKED, resume=True, overwrite=False) == full
    assert open_journal(tmp_path, ASKED, resume=False, overwrite=True).attempts == ()


@pytest.mark.parametrize(
    ("change", "resume", "code"),
    [
        (None, False, "UNFINISHED_RUN"),
        ({"data": "others"}, True, "OTHER_SEARCH"),
        ("{", True, "CORRUPT_FILE"),
        ('{"asked": {}, "attempts": [{}], "scale": {}, "dense": {}}', True, "CORRUPT_FILE"),
    ],
)
def test_what_is_no_journal_of_this_search_is_refused(tmp_path, change, resume, code):
    journal = open_journal(tmp_path, ASKED, resume=False, overwrite=False)
    journal.write()
    if isinstance(change, str):
        journal.path.write_text(change)
    asked = {**ASKED, **change} if isinstance(change, dict) else ASKED
    with pytest.raises(InputError) as caught:
        open_journal(tmp_path, asked, resume=resume, overwrite=False)
    assert caught.value.code == code


def test_there_has_to_be_a_search_to_go_on_with(tmp_path):
    with pytest.raises(InputError) as caught:
        open_journal(tmp_path, ASKED, resume=True, overwrite=False)
    assert caught.value.code == "NO_RUN"
