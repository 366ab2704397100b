"""The file that a model was pruned from is found again, and nothing else is taken for it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from prunecli import verbs
from prunecli.artefacts.origin import find_origin, moved, origin_of, place_of
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.checkpoint import save
from prunecli.options import FinetuneOptions
from tests.support.samples import VGG


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder with a dense model in `models/` and what was cut from it in `out/`."""
    for folder in ("models", "out"):
        (tmp_path / folder).mkdir()
    dense = tmp_path / "models" / "dense.safetensors"
    shutil.copy(VGG, dense)
    verbs.prune(dense, output=tmp_path / "out" / "cut.pt", budget=make_budget(flops=0.5))
    return tmp_path


def found(cut: Path) -> Path | None:
    origin = origin_of(read(cut).checkpoint)
    assert origin is not None
    return find_origin(origin, cut)


def told(cut: Path, **changes: object) -> Path:
    """Return a file beside `cut` whose history says other things of its input."""
    checkpoint = read(cut).checkpoint
    *before, last = checkpoint.metadata["history"]
    metadata = {**checkpoint.metadata, "history": [*before, {**last, **changes}]}
    path = cut.with_name("told.pt")
    save(dataclasses.replace(checkpoint, metadata=metadata), path)
    return path


def test_a_history_says_where_the_input_lay_and_how_large_it_was(home):
    *_, step = read(home / "out" / "cut.pt").checkpoint.metadata["history"]
    dense = home / "models" / "dense.safetensors"
    assert (step["place"], step["bytes"]) == ("../models/dense.safetensors", dense.stat().st_size)
    assert step["sha256"] == hashlib.sha256(dense.read_bytes()).hexdigest()


def test_it_is_found_where_it_was_also_after_both_have_moved(home):
    assert found(home / "out" / "cut.pt").samefile(home / "models" / "dense.safetensors")
    shutil.move(home, home.with_name("elsewhere"))
    elsewhere = home.with_name("elsewhere")
    assert found(elsewhere / "out" / "cut.pt").samefile(elsewhere / "models" / "dense.safetensors")


def test_it_is_found_beside_the_model_too(home):
    shutil.move(home / "models" / "dense.safetensors", home / "out" / "dense.safetensors")
    assert found(home / "out" / "cut.pt") == home / "out" / "dense.safetensors"


@pytest.mark.parametrize("change", ["absent", "other", "longer"])
def test_another_file_in_its_place_is_not_taken(home, change):
    dense = home / "models" / "dense.safetensors"
    content = bytearray(dense.read_bytes())
    dense.unlink()
    if change == "other":
        content[-1] ^= 1
    if change != "absent":
        dense.write_bytes(content + b"x" * (change == "longer"))
    assert found(home / "out" / "cut.pt") is None


@pytest.mark.parametrize(
    "place",
    [
        "{dense}",
        "//server/share/dense.safetensors",
        "\\\\server\\share\\dense.safetensors",
        "C:/dense.safetensors",
        "file://{dense}",
        "https://example.org/dense.safetensors",
        "..//models/dense.safetensors",
        "x\0y",
        "",
        7,
        None,
    ],
)
def test_no_place_but_a_relative_one_is_looked_at(home, place, monkeypatch):
    dense = home / "models" / "dense.safetensors"
    place = place.format(dense=dense) if isinstance(place, str) else place
    told_so = told(home / "out" / "cut.pt", place=place, input=str(dense))
    origin = origin_of(read(told_so).checkpoint)
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("a file was opened"))
    assert find_origin(origin, told_so) is None


@pytest.mark.parametrize("changes", [{"sha256": None}, {"input": 3}, {"verb": "x", "command": ""}])
def test_a_history_that_does_not_say_enough_has_no_origin(home, changes):
    assert origin_of(read(told(home / "out" / "cut.pt", **changes)).checkpoint) is None


def test_what_is_no_plain_file_is_not_opened(home):
    pipe = home / "models" / "pipe"
    os.mkfifo(pipe)  # to open it would wait for ever
    told_so = told(home / "out" / "cut.pt", place="../models/pipe", bytes=None)
    assert find_origin(origin_of(read(told_so).checkpoint), told_so) is None


def test_older_files_without_a_place_are_looked_for_beside_the_model(home):
    old = told(home / "out" / "cut.pt", place=None, bytes=None)
    assert find_origin(origin_of(read(old).checkpoint), old) is None
    shutil.copy(VGG, home / "out" / "dense.safetensors")
    found_again = find_origin(origin_of(read(old).checkpoint), old)
    assert found_again == home / "out" / "dense.safetensors"


def test_what_is_trained_and_cut_again_elsewhere_still_knows_the_first_dense_file(home):
    (home / "far" / "away").mkdir(parents=True)
    tuned, again = home / "far" / "tuned.pt", home / "far" / "away" / "again.pt"
    verbs.finetune(
        home / "out" / "cut.pt",
        data="digits",
        output=tuned,
        options=FinetuneOptions(epochs=1, limit=64, amp="no"),
    )
    verbs.prune(tuned, output=again, budget=make_budget(flops=0.8))
    for model in (tuned, again):
        assert found(model).samefile(home / "models" / "dense.safetensors")


def test_places_are_counted_from_the_folder_that_they_are_written_in(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "c").mkdir(parents=True)
    file = tmp_path / "a" / "x.pt"
    file.write_bytes(b"four")
    assert place_of(file, tmp_path / "b") == {"bytes": 4, "place": "../a/x.pt"}
    (step,) = moved([{"place": "../a/x.pt", "seed": 1}], tmp_path / "b", tmp_path / "b" / "c")
    assert step == {"place": "../../a/x.pt", "seed": 1}
    odd = [{"place": "/a/x.pt"}, {"place": 3}, "nothing"]
    assert moved(odd, tmp_path, tmp_path / "b") == odd
