"""A save that fails, or is killed, leaves what was there before."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from prunecli.atomic import atomic_write, check_output
from prunecli.checkpoint import load, save
from prunecli.checkpoint.writing import save_torch
from prunecli.errors import InputError

SUFFIXES = (".pt", ".safetensors")


def run_python(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def unwritable(error: pytest.ExceptionInfo[InputError]) -> bool:
    return (error.value.code, error.value.exit_code) == ("UNWRITABLE_OUTPUT", 2)


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(kind, tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def fail() -> None:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise kind

    with pytest.raises(kind):
        fail()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_permissions_are_those_of_the_old_file_or_of_any_new_one(tmp_path):
    (tmp_path / "old").touch(mode=0o640)
    (tmp_path / "plain").touch()
    for name in ("old", "new"):
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text("x")
    mode = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert mode["old"] == 0o640
    assert mode["new"] == mode["plain"]


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("place", ["missing/folder/m.pt", "m.zip", "m", "folder.pt"])
def test_an_impossible_output_is_refused_and_nothing_is_left(place, tmp_path, make_checkpoint):
    (tmp_path / "folder.pt").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        save(make_checkpoint(), tmp_path / place)
    assert unwritable(caught)
    assert str(tmp_path / place) == caught.value.where
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_permission_is_refused(tmp_path, make_checkpoint, monkeypatch):
    """The refusal of the system is simulated: the tests may run as root, whom nothing stops."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("prunecli.atomic.os.open", refuse)
    with pytest.raises(InputError, match="Permission denied") as caught:
        save(make_checkpoint(), tmp_path / "m.pt")
    assert unwritable(caught)


def test_a_device_is_not_replaced_by_a_file(make_checkpoint, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InputError, match="something else than a file"):
        save(make_checkpoint(), tmp_path / "pipe.pt")


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from prunecli.checkpoint import load, save
    from prunecli.errors import InputError

    checkpoint = load(sys.argv[1]).checkpoint
    for target in sys.argv[2:]:
        for limit in (0, 100, 4096, 100_000, 400_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                save(checkpoint, target)
            except InputError as error:
                assert error.code == "UNWRITABLE_OUTPUT", error
                print(error.message)
            else:
                print("no error")
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
"""


def test_a_full_disk_leaves_the_old_file(tmp_path, digits_checkpoint, make_checkpoint):
    targets = [tmp_path / f"m{suffix}" for suffix in SUFFIXES]
    for target in targets:
        save(make_checkpoint("digits_vgg"), target)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    told = run_python(FULL_DISK, digits_checkpoint, *targets).splitlines()
    assert len(told) == 10
    assert all(line.startswith("cannot write the output") for line in told), told
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    from prunecli.checkpoint import load, save

    new = load(sys.argv[1]).checkpoint
    random.seed(0)
    for target in sys.argv[2:]:
        for _ in range(25):
            child = os.fork()
            if child == 0:
                while True:
                    save(new, target)
            time.sleep(random.uniform(0.0005, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kept = load(target).checkpoint.architecture.name
            assert kept in {"digits_resnet", "digits_vgg"}, kept
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(
    tmp_path, digits_checkpoint, make_checkpoint
):
    targets = [tmp_path / f"m{suffix}" for suffix in SUFFIXES]
    for target in targets:
        save(make_checkpoint("digits_vgg"), target)
    run_python(KILLED, digits_checkpoint, *targets)
    for target in targets:
        assert load(target).checkpoint.tensors


KILLED_BEFORE_RENAME = """
    import os, signal, sys
    from pathlib import Path
    from prunecli.checkpoint import load, save

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    new = load(sys.argv[1]).checkpoint
    for target in sys.argv[2:]:
        child = os.fork()
        if child == 0:
            Path.replace = die
            save(new, target)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
"""


def test_a_kill_just_before_the_rename_leaves_the_old_bytes(
    tmp_path, digits_checkpoint, make_checkpoint
):
    targets = [tmp_path / f"m{suffix}" for suffix in SUFFIXES]
    for target in targets:
        save(make_checkpoint("digits_vgg"), target)
    before = [digest(target) for target in targets]
    run_python(KILLED_BEFORE_RENAME, digits_checkpoint, *targets)
    assert [digest(target) for target in targets] == before


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_full_disk_is_an_error_of_the_system_and_not_of_torch():
    with pytest.raises(OSError, match="space"):
        save_torch({"weight": torch.zeros(1000)}, Path("/dev/full"))


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_output_is_never_one_of_the_inputs_or_inside_a_folder_of_them(tmp_path, overwrite):
    model, data = tmp_path / "model.pt", tmp_path / "images"
    model.write_text("weights")
    (data / "cat").mkdir(parents=True)
    same = tmp_path / "same.pt"
    same.hardlink_to(model)
    link = tmp_path / "link.pt"
    link.symlink_to(model)
    for place in (model, same, link, data / "slim.pt", data / "cat" / "slim.pt"):
        with pytest.raises(InputError) as caught:
            check_output(place, inputs=[model, data], overwrite=overwrite)
        assert caught.value.code == "OUTPUT_IS_INPUT"
    check_output(tmp_path / "beside.pt", inputs=[model, data], overwrite=overwrite)


def test_another_file_is_replaced_only_where_that_was_asked_for(tmp_path):
    there = tmp_path / "there.pt"
    there.write_text("wanted")
    check_output(there, inputs=[], overwrite=True)
    with pytest.raises(InputError, match="the table exists already") as caught:
        check_output(there, inputs=[], overwrite=False, what="table", flag="--table")
    assert caught.value.code == "OUTPUT_EXISTS"
    assert "(--table)" in caught.value.hint


def test_a_place_that_takes_no_file_is_told_before_any_work(tmp_path):
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "folder", tmp_path / "absent" / "slim.pt"):
        with pytest.raises(InputError) as caught:
            check_output(place, inputs=[], overwrite=True)
        assert caught.value.code == "UNWRITABLE_OUTPUT"
