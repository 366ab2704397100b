"""Which checkpoint a verb takes when none is named."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunecli.errors import InputError
from prunecli_cli import find_model


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said():
    return []


def find(said, given=None, **options):
    return find_model.find_checkpoint(given, say=said.append, **options)


@pytest.fixture
def pipe(monkeypatch):
    """Return a function that puts text into a real pipe and makes it stdin."""
    opened = []

    def feed(text):
        reading, writing = os.pipe()
        os.write(writing, text.encode())
        os.close(writing)
        stream = os.fdopen(reading)
        opened.append(stream)
        monkeypatch.setattr(sys, "stdin", stream)

    yield feed
    for stream in opened:
        stream.close()


def make_output(name, command="prune"):
    Path(name).write_bytes(b"x")
    assert find_model.record(Path(name), command=command)


def test_a_named_model_wins_over_a_pipe_and_over_the_last_run(said, pipe):
    make_output("last.pt")
    pipe("piped.pt\n")
    assert find(said, Path("named.pt")) == Path("named.pt")
    assert said == []


def test_a_piped_path_wins_over_the_last_run(said, pipe):
    make_output("last.pt")
    pipe("with space.pt\n")
    assert find(said) == Path("with space.pt")
    assert said == []


def test_a_dash_means_stdin(said, pipe):
    pipe("piped.pt")
    assert find(said, Path("-")) == Path("piped.pt")


def test_an_envelope_is_as_good_as_a_path(said, pipe):
    pipe(json.dumps({"schema_version": 1, "ok": True, "data": {"output": "slim.pt"}}))
    assert find(said) == Path("slim.pt")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "EMPTY_PIPE"),
        ("\n \n", "EMPTY_PIPE"),
        ("a.pt\nb.pt\n", "BAD_PIPE"),
        ('{"ok": false, "error": {}}', "BAD_PIPE"),
        ('{"ok": false, "data": {"output": "a.pt"}}', "EMPTY_PIPE"),
        ('{"ok": true, "data": {"output": null}}', "EMPTY_PIPE"),
        ("{broken", "BAD_PIPE"),
    ],
)
def test_a_pipe_without_a_path_is_an_error_even_after_an_earlier_run(said, pipe, text, code):
    make_output("last.pt")
    pipe(text)
    with pytest.raises(InputError) as caught:
        find(said)
    assert caught.value.code == code


def test_the_newest_output_that_still_exists_is_taken_and_announced(said):
    make_output("first.pt")
    make_output("second.pt")
    make_output("third.onnx", "export")
    assert find(said) == Path("second.pt")
    assert find(said, exported=True) == Path("third.onnx")
    Path("second.pt").unlink()
    assert find(said) == Path("first.pt")
    assert "first.pt, the newest output of the last run" in said[-1]


def test_nothing_named_piped_or_remembered_is_a_usage_error(said):
    with pytest.raises(InputError, match="no model was given") as caught:
        find(said)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["", "null", "[]", '{"outputs": 3}', '{"outputs": [3]}', "{"])
def test_a_damaged_memory_counts_as_none(said, content):
    Path(".prunecli").mkdir()
    Path(".prunecli/last.json").write_text(content)
    with pytest.raises(InputError, match="no model"):
        find(said)
    make_output("new.pt")
    assert find(said) == Path("new.pt")


def test_the_memory_stays_short_and_holds_each_output_once():
    for index in range(30):
        make_output(f"{index % 25}.pt")
    state = json.loads(Path(".prunecli/last.json").read_text())
    outputs = [entry["output"] for entry in state["outputs"]]
    assert len(outputs) == len(set(outputs)) == find_model.KEPT_RUNS
    assert outputs[-1] == "4.pt"
    assert list(Path(".prunecli").iterdir()) == [Path(".prunecli/last.json")]


def test_a_folder_that_cannot_be_written_is_no_error():
    Path(".prunecli").write_text("a file where the folder should be")
    assert find_model.record(Path("a.pt"), command="prune") is False


@pytest.mark.parametrize("stream", [None, io.StringIO("x.pt")])
def test_a_stdin_without_a_file_is_no_pipe(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdin", stream)
    assert not find_model.is_piped()
    assert find_model.read_pipe(lambda _: None) is None


IS_PIPED = "from prunecli_cli.find_model import is_piped; print(is_piped())"


@pytest.mark.parametrize(
    ("redirection", "expected"),
    [
        ("< /dev/null", "False"),
        ("<&-", "False"),
        ("< empty", "False"),
        ("< filled", "True"),
        ("| {python}", "True"),
    ],
)
def test_pipes_are_told_from_what_ci_gives_as_stdin(redirection, expected):
    Path("empty").touch()
    Path("filled").write_text("a.pt\n")
    program = f'{sys.executable} -c "{IS_PIPED}"'
    command = f"echo a.pt | {program}" if "|" in redirection else f"{program} {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_a_silent_writer_is_waited_for_with_a_word(said, monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(find_model, "PATIENCE", 0.01)

    def say(text):
        said.append(text)
        os.write(writing, b"late.pt\n")
        os.close(writing)

    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert find_model.find_checkpoint(None, say=say) == Path("late.pt")
    assert said == ["waiting for a checkpoint path on standard input"]
