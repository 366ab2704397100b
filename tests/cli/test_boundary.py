"""Nothing that data, a terminal or the system does ends in a traceback."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.table import Table

from prunecli import report
from prunecli.errors import InputError, is_out_of_memory
from prunecli.files import reading
from prunecli.wording import one_line, printable, some
from prunecli_cli import find_model
from prunecli_cli.main import main
from prunecli_cli.render import _console
from tests.support.fake_verbs import analyze_report

WORDS = ("prune", "m.pt", "--flops", "0.5")
STEERING = ("\x1b[2J", "\r", "\x07", "\u202e", "\u2066", "\x9b", "\u2028", "\x08", "\udce9")
MARKUP = ("[/red]", "[bold]x[/bold]", "[link=file:///etc]y[/link]", "[", "\\[", "[/]")


@pytest.mark.parametrize("name", [*MARKUP, *STEERING])
def test_a_class_name_is_shown_as_what_it_is(verbs, monkeypatch, capsys, name):
    found = analyze_report(model=False, dataset=True)
    classes = (report.ClassCount(f"a{name}", 3), report.ClassCount("b", 4))
    hostile = dataclasses.replace(
        found, dataset=dataclasses.replace(found.dataset, classes=classes, warnings=(name,))
    )
    monkeypatch.setattr(verbs, "analyze", lambda **_: hostile)
    verbs.warnings = (name,)
    assert main(["analyze", "digits"]) == 0
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert not any(sign in shown for sign in STEERING)
    assert main(["analyze", "digits", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]["dataset"]["classes"]
    assert told[0]["name"].encode("utf-8", "backslashreplace") == f"a{name}".encode(
        "utf-8", "backslashreplace"
    )


@pytest.mark.parametrize("name", [*MARKUP, *STEERING])
def test_cells_titles_and_headers_are_shown_as_what_they_are(name):
    stream = io.StringIO()
    table = Table(name, title=f"<{name}>")
    table.add_row(f"{name}|")
    _console(stream).print(table)
    _console(stream).print(f"{name}!")
    shown = stream.getvalue()
    assert f"{printable(name)}!" in shown
    assert not any(sign in shown for sign in STEERING)


@pytest.mark.parametrize("name", STEERING)
def test_an_error_steers_no_terminal(verbs, capsys, name):
    verbs.raises = InputError(f"no {name}", code="X", where=f"/a/{name}", hint=f"try {name}")
    assert main(WORDS) == 2
    assert name not in capsys.readouterr().err


def test_names_in_a_sentence_stay_on_its_line():
    assert some(["a\nerror: b", "c"]) == "a\\x0aerror: b, c"
    assert one_line("x\t\x1b") == "x\\x09\\x1b"
    assert (
        printable("two\nlines\tand caf\u00e9 \u65e5\u672c")
        == "two\nlines\tand caf\u00e9 \u65e5\u672c"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: "
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_told_with_the_next_step(verbs, capsys, error):
    assert is_out_of_memory(error)
    verbs.raises = error
    assert main(WORDS) == 2
    err = capsys.readouterr().err
    assert "OUT_OF_MEMORY" in err
    assert "--batch-size" in err
    outer = ValueError("no such thing")
    outer.__cause__ = error
    assert is_out_of_memory(outer)
    assert not is_out_of_memory(ValueError("no such thing"))


def test_a_library_that_cannot_be_loaded_is_told_with_the_next_step(verbs, capsys):
    verbs.raises = ImportError("cannot import name 'X' from 'torch._dynamo.utils'")
    assert main(WORDS) == 2
    err = capsys.readouterr().err
    assert "IMPORT_FAILED" in err
    assert "ulimit" in err


@pytest.mark.parametrize(
    "error",
    [RecursionError(), UnicodeError("x"), OverflowError(), StopIteration(), BaseException("panic")],
)
def test_whatever_a_parser_raises_is_a_damaged_file(tmp_path, error):
    def damaged(path, reason):
        return InputError(reason, code="DAMAGED", where=str(path))

    def parse():
        with reading(tmp_path, damaged):
            raise error

    with pytest.raises(InputError) as caught:
        parse()
    assert caught.value.code == "DAMAGED"
    assert caught.value.message

    def stop():
        with reading(tmp_path, damaged):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()


@pytest.mark.parametrize("where", ["record", "show"])
@pytest.mark.parametrize(
    ("error", "code"), [(MemoryError(), 2), (KeyboardInterrupt(), 130), (ValueError("odd"), 2)]
)
@pytest.mark.usefixtures("verbs")
def test_nothing_escapes_after_the_work(monkeypatch, capsys, where, error, code):
    def fail(*_, **__):
        raise error

    target = "prunecli_cli.main.record" if where == "record" else "prunecli_cli.render.Screen.show"
    monkeypatch.setattr(target, fail)
    assert main(WORDS) == code
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        '{"outputs": [{"output": 7}, {"output": "a\\u0000b"}, {"output": null}]}',
        "[" * 100_000,
        '{"outputs": 3}',
        "\x00",
    ],
)
def test_a_state_file_that_makes_no_sense_counts_as_empty(tmp_path, text):
    (tmp_path / find_model.FOLDER).mkdir()
    (tmp_path / find_model.FOLDER / find_model.STATE).write_text(text)
    assert list(find_model.outputs(tmp_path)) == []
    assert find_model.record(tmp_path / "m.pt", command="prune", folder=tmp_path)


def start(*words, code=None, **options):
    program = ["-m", "prunecli"] if code is None else ["-c", code]
    return subprocess.Popen(
        [sys.executable, *program, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


SLOW_START = """
import sys, importlib.abc
class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "typer":
            print("starting", file=sys.__stderr__, flush=True)
            import time; time.sleep(30)
sys.meta_path.insert(0, Slow())
from prunecli_cli.start import run
run()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_while_it_starts_is_told_in_one_line(number, code):
    process = start("--help", code=SLOW_START)
    assert process.stderr.readline() == "starting\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", "error: interrupted\n")


def test_a_full_disk_behind_the_output_is_told(tmp_path):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "prunecli", "guide", "scripts"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_termination_is_answered_as_ctrl_c_is(tmp_path):
    code = (
        "import sys, time, types, prunecli\n"
        "def prune(*_, **__):\n"
        "    print('begun', file=sys.__stderr__, flush=True)\n"
        "    time.sleep(30)\n"
        "prunecli.verbs = types.SimpleNamespace(prune=prune)\n"
        "from prunecli_cli.start import run\n"
        "run()\n"
    )
    (tmp_path / WORDS[1]).write_bytes(b"weights")
    process = start(*WORDS, "--json", code=code, cwd=tmp_path)
    assert process.stderr.readline() == "begun\n"
    began = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 143
    assert json.loads(out)["error"]["code"] == "TERMINATED"
    assert "Traceback" not in err
