"""`finetune --loss outputs` on files: plain images, the teacher from the history, told errors."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from prunecli import verbs
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.data import open_images, open_source
from prunecli.errors import InputError
from prunecli.options import FinetuneOptions
from prunecli_cli.main import main
from tests.support.image_folders import write_folder
from tests.support.samples import VGG

OUTPUTS = FinetuneOptions(epochs=2, batch_size=16, amp="no", loss="outputs", lr=0.02)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a folder of digits as image files, none of which says what it is."""
    folder = tmp_path_factory.mktemp("plain") / "images"
    folder.mkdir()
    images = open_source("digits").splits["train"].images[:160]
    for at, image in enumerate(np.asarray(images)):
        Image.fromarray(image[0].astype(np.uint8)).save(folder / f"{at:03d}.png")
    return folder


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    shutil.copy(VGG, folder / "dense.safetensors")
    verbs.prune(
        folder / "dense.safetensors", output=folder / "cut.pt", budget=make_budget(flops=0.4)
    )
    return folder


@pytest.fixture
def cut(pruned, tmp_path):
    """Return a cut model beside its dense one."""
    shutil.copytree(pruned, tmp_path, dirs_exist_ok=True)
    return tmp_path / "cut.pt"


def test_a_cut_model_follows_what_it_was_pruned_from_on_plain_images(cut, plain, tmp_path):
    report = verbs.finetune(
        cut, data=str(plain), output=tmp_path / "tuned.pt", options=OUTPUTS,
        page=tmp_path / "page.html",
    )  # fmt: skip
    assert report.taught_by.origin == "history"
    assert report.accuracy.measure == report.held_out.measure == "agreement"
    assert report.accuracy.after > report.accuracy.before
    (one,) = report.imitated
    assert (one.kind, one.loss) == ("class scores", "softened KL (Hinton et al. 2015)")
    assert report.outputs[0].agreement == report.accuracy.after
    assert "softened KL" in (tmp_path / "page.html").read_text()
    stored = read(tmp_path / "tuned.pt").checkpoint
    assert stored.classes == read(cut).checkpoint.classes  # not those of the folder
    assert stored.metadata["history"][-1]["accuracy"]["measure"] == "agreement"


def test_folders_of_any_kind_are_read_for_their_images(tmp_path):
    flat = write_folder(tmp_path / "nested")
    assert open_images(flat).classes == ("cat", "dog")  # which spread what is held out
    shutil.copy(flat / "cat" / "0.png", flat / "0.png")
    both = open_images(flat)
    assert (both.format, len(both.splits["all"])) == ("images", 25)
    split = tmp_path / "split"
    for name in ("train", "test"):
        (split / name).mkdir(parents=True)
        for at in range(3 if name == "train" else 2):
            shutil.copy(flat / "0.png", split / name / f"{at}.png")
    assert {name: len(files) for name, files in open_images(split).splits.items()} == {
        "train": 3, "test": 2
    }  # fmt: skip
    deep = tmp_path / "deep"
    shutil.copytree(flat / "cat", deep / "2024" / "may")
    assert len(open_images(deep).splits["all"]) == 12
    with pytest.raises(InputError, match=r"not sorted|class") as caught:
        open_source(split)
    assert "--loss outputs" in caught.value.hint
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no image")
    for folder in ("empty", "text"):
        with pytest.raises(InputError):
            open_images(tmp_path / folder)


def test_a_teacher_of_other_outputs_or_none_is_told_before_work(
    cut, plain, capsys, make_checkpoint
):
    from prunecli.checkpoint import save

    other = cut.with_name("seven.pt")
    save(make_checkpoint("digits_vgg", num_classes=7), other)
    for words, code in (
        (["--teacher", str(other)], "TEACHER_MISMATCH"),
        (["--teacher", "none"], "NO_TEACHER"),
        (["--match", "nowhere.*"], "NO_SUCH_LAYER"),
        (["--alpha", "0.5"], "OPTION_WITHOUT_EFFECT"),
        (["--curriculum", "x.parquet"], "OPTION_WITHOUT_EFFECT"),
    ):
        command = ["finetune", str(cut), "--data", str(plain), "--loss", "outputs", *words]
        output = cut.with_name("out.pt")
        assert main([*command, "-o", str(output), "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code
        assert not output.exists()
    cut.with_name("dense.safetensors").unlink()
    command = ["finetune", str(cut), "--data", str(plain), "--loss", "outputs", "--json"]
    assert main(command) == 2
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["code"] == "NO_TEACHER"
    assert "not where it was" in told["message"]


def test_agreement_is_a_gate(cut, plain, capsys, tmp_path):
    command = [
        "finetune", str(cut), "--data", str(plain), "--loss", "outputs", "--epochs", "1",
        "-o", str(tmp_path / "tuned.pt"), "--overwrite",
    ]  # fmt: skip
    assert main([*command, "--min-agreement", "0.999"]) == 1
    assert "agreement" in capsys.readouterr().err
    assert (tmp_path / "tuned.pt").exists()
    assert main([*command, "--max-drop", "100%"]) == 0
    assert main([*command, "--min-accuracy", "0.1"]) == 1
    assert "--min-agreement" in capsys.readouterr().err
