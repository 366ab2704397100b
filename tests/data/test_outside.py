"""Images stay below the folder of their data, unless somebody says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from prunecli.data import names_of, open_source
from prunecli.errors import InputError
from prunecli.files import limited
from tests.support.command_line import envelope


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), len(str(path)) % 255, np.uint8)).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    """Return a folder of two classes, beside a folder of private images."""
    for name in ("cat", "dog"):
        for at in range(2):
            picture(tmp_path / "data" / name / f"{at}.png")
            picture(tmp_path / "private" / name / f"{at}.png")
    return tmp_path / "data"


def found(source):
    return sorted(name for split in source.splits.values() for name in names_of(split))


@pytest.mark.parametrize("link", ["image", "folder", "class", "chain", "split"])
def test_a_link_out_of_the_folder_is_left_out_counted_and_named(tmp_path, data, link):
    private = tmp_path / "private"
    if link == "split":
        (data.parent / "whole").mkdir()
        (data.parent / "whole/train").symlink_to(data)
        data = data.parent / "whole"
        source_of = data
        with pytest.raises(InputError, match="2 links lead out") as caught:
            open_source(source_of)
        assert caught.value.code == "NO_IMAGES"
        with limited(outside=True):
            assert len(found(open_source(source_of))) == 4
        return
    if link == "image":
        (data / "cat/x.png").symlink_to(private / "cat/0.png")
    elif link == "folder":
        (data / "cat/more").symlink_to(private / "cat")
    elif link == "class":
        (data / "bird").symlink_to(private / "cat")
    else:
        (data / "cat/a.png").symlink_to(data / "cat/b.png")
        (data / "cat/b.png").symlink_to("../../private/cat/0.png")
    source = open_source(data)
    assert not any("private" in name or "bird" in name for name in found(source))
    assert len(found(source)) == 4
    (told,) = [text for text in source.problems if "out of the folder" in text]
    assert "--allow-outside" in told
    with limited(outside=True):
        assert len(found(open_source(data))) > 4


def test_links_within_the_folder_and_a_folder_that_is_a_link_are_followed(tmp_path, data):
    (data / "cat/again.png").symlink_to(data / "dog/0.png")
    (tmp_path / "linked").symlink_to(data)
    source = open_source(tmp_path / "linked")
    assert len(found(source)) == 5
    assert source.problems == ()


@pytest.mark.parametrize("kind", ["up", "absolute", "link", "folder"])
def test_a_path_of_a_table_out_of_its_folder_is_left_out(tmp_path, data, kind):
    private = tmp_path / "private/cat/0.png"
    (data / "x.png").symlink_to(private)
    (data / "away").symlink_to(private.parent)
    path = {"up": "../private/cat/0.png", "absolute": str(private), "link": "x.png",
            "folder": "away/0.png"}[kind]  # fmt: skip
    table = data / "t.csv"
    table.write_text(f"path,label\ncat/0.png,cat\ndog/../dog/0.png,dog\n{path},cat\n")
    source = open_source(table)
    assert len(found(source)) == 2
    assert any("1 file of the table lies outside" in text for text in source.problems)
    with limited(outside=True):
        assert len(found(open_source(table))) == 3
    table.write_text(f"path,label\n{path},cat\n{path},dog\n")
    with pytest.raises(InputError, match="outside of its folder") as caught:
        open_source(table)
    assert "--allow-outside" in caught.value.hint


def test_a_table_in_a_folder_of_a_split_may_name_images_of_the_whole_data(tmp_path, data):
    for split in ("train", "test"):
        (data / split).mkdir()
        (data / split / "labels.csv").write_text("../cat/0.png,cat\n../dog/0.png,dog\n")
    for name in ("cat", "dog"):
        (data / name).rename(data / "test" / f"{name}-images")
    text = "../test/cat-images/0.png,cat\n../test/dog-images/0.png,dog\n"
    for split in ("train", "test"):
        (data / split / "labels.csv").write_text(text)
    with limited(outside=False):
        source = open_source(data)
    assert len(found(source)) == 4


def test_the_option_reaches_the_data(tmp_path, data, capsys):
    (data / "bird").symlink_to(tmp_path / "private/cat")
    code, told = envelope(capsys, "analyze", str(data))
    assert code == 0
    assert told["data"]["dataset"]["images"] == 4
    assert any("--allow-outside" in text for text in told["warnings"])
    code, told = envelope(capsys, "analyze", str(data), "--allow-outside")
    assert told["data"]["dataset"]["images"] == 6
