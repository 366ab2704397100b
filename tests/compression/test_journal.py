"""What is kept of a search that was stopped."""

from __future__ import annotations

import dataclasses
import json

import pytest

from prunecli.compression.journal import Cut, open_journal
from prunecli.errors import InputError
from prunecli.report import Attempt

ATTEMPT = Attempt(
    strength=0.5, budget="--flops 0.5", file="a.pt", kept={"flops": 0.5}, bytes=10, epochs=1,
    seconds=2.0, ok=True, drop=0.01,
)  # fmt: skip
NOTHING = {"asked": {}, "model": "", "cuts": [], "attempts": [], "scale": {}, "dense": {}}
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
        (json.dumps({**NOTHING, "attempts": [{}]}), True, "CORRUPT_FILE"),
        (json.dumps({**NOTHING, "attempts": 3}), True, "CORRUPT_FILE"),
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


def test_a_search_goes_on_for_the_same_model_alone(tmp_path):
    open_journal(tmp_path, ASKED, resume=False, overwrite=False).of_model("a" * 64).write()
    again = open_journal(tmp_path, ASKED, resume=True, overwrite=False)
    assert again.of_model("a" * 64) == again
    with pytest.raises(InputError) as caught:
        again.of_model("b" * 64)
    assert caught.value.code == "OTHER_SEARCH"


def test_a_new_search_finds_nothing_of_an_earlier_one(tmp_path):
    folder = tmp_path / "x.search"
    (folder / "0.500.3-epochs.run").mkdir(parents=True)
    open_journal(tmp_path / "y.search", ASKED, resume=False, overwrite=False)
    with pytest.raises(InputError) as caught:  # not ours: nothing of it is touched
        open_journal(folder, ASKED, resume=False, overwrite=True)
    assert caught.value.code == "OUTPUT_EXISTS"
    assert (folder / "0.500.3-epochs.run").exists()
    (folder / "search.json").write_text("{}")
    open_journal(folder, ASKED, resume=False, overwrite=True)
    assert not folder.exists()


def test_a_model_is_taken_from_the_journal_only_while_its_file_is_there(tmp_path):
    journal = open_journal(tmp_path, ASKED, resume=False, overwrite=False)
    cut = Cut(0.5, "--flops 0.5", "0.500.pruned.pt", {"flops": 0.5})
    journal = dataclasses.replace(journal, attempts=(ATTEMPT,), cuts=(cut,))
    assert journal.cut_at(0.5) is journal.tried_at(0.5, 1) is None
    (tmp_path / cut.file).touch()
    (tmp_path / ATTEMPT.file).touch()
    assert journal.cut_at(0.5) == cut
    assert (journal.tried_at(0.5, 1), journal.tried_at(0.5, 2)) == (ATTEMPT, None)


def test_there_has_to_be_a_search_to_go_on_with(tmp_path):
    with pytest.raises(InputError) as caught:
        open_journal(tmp_path, ASKED, resume=True, overwrite=False)
    assert caught.value.code == "NO_RUN"
