"""Files that ask for more than they hold are refused before anything is allocated, in seconds."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from prunecli.architectures.reference import InputSpec
from prunecli.checkpoint import load
from prunecli.data import load_split, open_source
from prunecli.errors import LoadRefusedError, PruneError
from prunecli.exporting import read_metadata
from prunecli.files import limited
from prunecli_cli.main import main
from tests.support.command_line import run
from tests.support.strangers import CHECKPOINTS, DATA, short_storage

INPUT = InputSpec(1, 8, 8, (0.5,), (0.5,))
LIMIT = 2**28
MORE = 600 * 2**20
"""Bytes of address space that reading a hostile file may take."""


@contextmanager
def little_memory():
    """Let this process map no more than `MORE` bytes beyond what it has."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MORE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_checkpoint_that_asks_for_too_much_is_refused_at_once(tmp_path, what):
    path = CHECKPOINTS[what](tmp_path / "m.pt")
    start = time.perf_counter()
    with limited(memory=LIMIT), little_memory(), pytest.raises(LoadRefusedError) as caught:
        load(path)
    assert time.perf_counter() - start < 20
    assert caught.value.code in {"CORRUPT_FILE", "FILE_TOO_LARGE"}
    if caught.value.code == "FILE_TOO_LARGE":
        assert "--max-file-memory" in caught.value.hint
        assert any(unit in caught.value.message for unit in (" MB", " GB", " TB"))


@pytest.mark.parametrize("what", DATA)
def test_a_data_set_that_asks_for_too_much_is_refused_at_once(tmp_path, what):
    make, name = DATA[what]
    path = make(tmp_path / name)
    with limited(memory=LIMIT), little_memory(), pytest.raises(LoadRefusedError) as caught:
        open_source(path)
    assert caught.value.code in {"CORRUPT_DATA", "FILE_TOO_LARGE"}


def test_the_limit_is_an_option_and_the_error_says_how_high_it_has_to_be(tmp_path, capsys):
    torch.save({"weight": torch.zeros(300_000)}, tmp_path / "m.pt")
    with (tmp_path / "m.pt").open("r+b") as file:  # a hole of 2 MB behind it: less on disk
        file.truncate(file.seek(0, os.SEEK_END))
    words = ("analyze", str(tmp_path / "m.pt"))
    code, _, err = run(capsys, *words, "--max-file-memory", "1GB")
    assert "UNKNOWN_ARCHITECTURE" in err
    os.truncate(tmp_path / "m.pt", 3 * 10**9)
    code, _, err = run(capsys, *words, "--max-file-memory", "1GB")
    assert code == 4
    assert "would take 3.0 GB of memory, and 1.0 GB is the most" in err
    assert "--max-file-memory 3GB" in err


def test_a_large_file_that_is_really_there_needs_no_option(tmp_path):
    torch.save({"weight": torch.zeros(500_000)}, tmp_path / "m.pt")
    with limited(memory=1000 * 256), pytest.raises(PruneError) as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "UNKNOWN_ARCHITECTURE"


@pytest.mark.parametrize("make", ["fifo", "zero", "socket-free folder"])
@pytest.mark.parametrize("place", ["model", "table", "archive", "onnx"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, capsys, make, place):
    name = {"model": "m.pt", "table": "t.csv", "archive": "x.npz", "onnx": "m.onnx"}[place]
    path = tmp_path / name
    if make == "fifo":
        os.mkfifo(path)
    elif make == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    of_model = place in {"model", "onnx"}
    words = ("evaluate", str(path), "--data", "digits") if of_model else ("analyze", str(path))
    signal.alarm(60)  # ends the test where something waits for a pipe
    code, _, err = run(capsys, *words)
    signal.alarm(0)
    assert code in {2, 4}
    assert "INTERNAL" not in err


def test_images_that_are_devices_pipes_or_bombs_are_left_out(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for at in range(3):
            Image.fromarray(np.full((8, 8), at, np.uint8)).save(tmp_path / name / f"{at}.png")
    (tmp_path / "a/zero.png").symlink_to("/dev/zero")
    (tmp_path / "a/postscript.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )
    (tmp_path / "a/holes.png").write_bytes(b"\x89PNG\r\n")
    os.truncate(tmp_path / "a/holes.png", 10**12)
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a/bomb.png")
    os.mkfifo(tmp_path / "a/pipe.png")
    source = open_source(tmp_path)
    with little_memory():
        images = load_split(source, "all", input=INPUT)
    assert len(images) == 6
    said = " ".join(images.found())
    assert "1 link leads out" in said
    assert "1 file in" in said  # the pipe
    assert "3 images cannot be read" in said


def external(folder, **entries):
    """Return an ONNX file whose only weight lies elsewhere."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["input", "w"], ["logits"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("input", "logits")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "/etc/passwd"},
        {"location": "../secret"},
        {"location": "/dev/zero"},
        {"location": "linked"},
        {"location": "missing"},
        {"location": "."},
        {"location": "w.data", "offset": "8", "length": "100"},
        {"location": "w.data", "offset": "-8", "length": "8"},
        {"location": "w.data", "length": "many"},
    ],
)
def test_weights_of_an_onnx_file_lie_beside_it_or_it_is_refused(tmp_path, entries):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "w.data").write_bytes(bytes(16))
    (folder / "linked").symlink_to(tmp_path / "secret")
    with pytest.raises(LoadRefusedError):
        read_metadata(external(folder, **entries))
    assert read_metadata(external(folder, location="w.data", offset="0", length="16"))
    assert onnx.load(str(folder / "m.onnx"))


def test_an_archive_behind_a_pickle_is_read_as_torch_reads_it(tmp_path):
    """Torch tells the formats by the first bytes, `zipfile` by the last."""
    honest = tmp_path / "honest.pt"
    torch.save({"w": torch.zeros(2)}, honest)
    path = short_storage(tmp_path / "m.pt", old=True)
    path.write_bytes(path.read_bytes() + honest.read_bytes())
    with little_memory(), pytest.raises(LoadRefusedError) as caught:
        load(path)
    assert caught.value.code == "CORRUPT_FILE"


def test_settings_that_are_endless_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("a = " + "[" * 100_000)
    assert main(["evaluate", "m.pt", "--data", "digits", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "BAD_CONFIG"
