"""Files to read and places to write to, looked at before any work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from prunecli.errors import InputError, LoadRefusedError
from prunecli.files import nearest_path
from prunecli.preflight.files import check_data, check_file, check_inputs
from prunecli.preflight.outputs import check_folder, check_room, check_written, room_for
from prunecli.preflight.pruning import check_prune


def refusal(function, *arguments, **options):
    with pytest.raises((InputError, LoadRefusedError)) as caught:
        function(*arguments, **options)
    return caught.value


def test_the_nearest_name_has_the_same_folder_and_nearly_the_same_stem(tmp_path):
    (tmp_path / "resnet56.th").touch()
    (tmp_path / "notes.txt").touch()
    assert nearest_path(tmp_path / "resnet65.pt").startswith(
        f"did you mean {tmp_path / 'resnet56.th'}?"
    )
    assert nearest_path(tmp_path / "model.pt") == ""


def test_a_folder_on_the_way_that_is_missing_is_named_and_only_the_first_one(tmp_path):
    said = nearest_path(tmp_path / "a" / "b" / "m.pt")
    assert said == f"the folder {tmp_path / 'a'} does not exist; "


def test_files_and_data_that_are_there_pass(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"x")
    check_inputs(tmp_path / "m.pt", None, data="digits")
    check_inputs(data=str(tmp_path))
    check_inputs(None)


def test_an_empty_file_is_no_model(tmp_path):
    (tmp_path / "m.pt").touch()
    assert refusal(check_file, tmp_path / "m.pt").code == "EMPTY_FILE"


def test_data_that_is_nowhere_is_told_with_what_may_be_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    assert "did you mean images?" in refusal(check_data, "imagse").hint
    assert "did you mean 'digits'?" in refusal(check_data, "digit").hint


def test_a_disk_without_room_is_told_before_the_work(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path / "x.pt", free // 2)
    error = refusal(check_room, tmp_path / "x.pt", 10 * free + 1)
    assert error.code == "UNWRITABLE_OUTPUT"
    assert "needed" in error.message
    check_written(tmp_path / "x.pt", inputs=(), overwrite=False)
    assert not list(tmp_path.iterdir())


def test_the_room_for_a_model_follows_its_file(tmp_path):
    model = tmp_path / "m.pt"
    model.touch()
    os.truncate(model, 8_000_000)
    assert room_for(model) == 1_000_000


def test_pictures_have_a_place_that_can_be_made(tmp_path):
    check_folder(tmp_path / "new" / "pictures", ["layers"], overwrite=False)
    (tmp_path / "file").touch()
    error = refusal(check_folder, tmp_path / "file" / "pictures", ["layers"], overwrite=False)
    assert error.code == "UNWRITABLE_OUTPUT"


def test_what_can_be_pruned_passes_with_images_and_without():
    from prunecli.budget import make_budget
    from prunecli.options import PruneOptions

    half = make_budget(flops=0.5)
    check_prune(PruneOptions(), half, images=False)
    check_prune(PruneOptions(signal="taylor", repair=("bn",)), half, images=True)
    check_prune(PruneOptions(method="iterative"), half, images=True)
    check_prune(PruneOptions(allocation="inverse-importance"), half, images=False)
    check_prune(PruneOptions(granularity="2:4"), None, images=False)
    check_prune(PruneOptions(granularity="weight"), make_budget(sparsity=0.9), images=False)
    check_prune(PruneOptions(dead=True), make_budget(needed=False), images=False)
