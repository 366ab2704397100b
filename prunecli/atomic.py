"""Write a file so that a kill at any moment leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.lifetime.claims import claim, forget_dead, mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NEW_FILE_MODE = 0o666  # narrowed by the process's umask, as for any other new file


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, which becomes `path` when the block ends well.

    The data is flushed to disk before the rename. If the block fails, the temporary file is removed
    and an earlier `path` is untouched. Raises `InputError` (`UNWRITABLE_OUTPUT`) when the folder
    cannot be written to or an `OSError` comes out of the block.
    """
    target = Path(os.path.realpath(path))  # replaces what a symbolic link points to, not the link
    with writing_to(path):
        mode = _check_target(target)
        forget_dead(target.parent)
        temporary = target.with_name(f".{target.name}.{mark()}-{os.urandom(4).hex()}.tmp")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _NEW_FILE_MODE))
        try:
            if mode is not None:
                temporary.chmod(mode)
            wanted = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(wanted)  # safetensors puts a file of its own there, for the owner alone
            _flush(temporary)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # some file systems cannot flush a folder
            _flush(target.parent)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into `InputError` (`UNWRITABLE_OUTPUT`)."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error


def unwritable(path: Path, reason: str, *, hint: str | None = None) -> InputError:
    """Return the error for an output that cannot be written."""
    return InputError(
        f"cannot write the output: {reason}",
        code="UNWRITABLE_OUTPUT",
        where=str(path),
        hint=hint or "nothing was changed; free some space or choose another place",
    )


def check_output(
    path: Path,
    *,
    inputs: Iterable[Path],
    overwrite: bool,
    what: str = "output",
    flag: str = "--out",
) -> None:
    """Raise `InputError` for an output that would destroy an input or another file, before work.

    `OUTPUT_IS_INPUT` for one of the inputs or a place inside a folder of them, `OUTPUT_EXISTS`,
    `OUTPUT_BUSY` where another run is about to write it, and `UNWRITABLE_OUTPUT`. `what` names the
    output, `flag` says by which option another is given.
    """
    for given in inputs:
        over = path.exists() and given.exists() and path.samefile(given)
        if over or (given.is_dir() and given.resolve() in path.resolve().parents):
            raise InputError(
                f"the {what} would be written over or into what it is made of",
                code="OUTPUT_IS_INPUT",
                where=str(path),
                hint=f"give a place beside that: {flag}",
            )
    if path.exists() and not path.is_file():
        raise _no_file(path)
    if path.exists() and not overwrite:
        raise InputError(
            f"the {what} exists already",
            code="OUTPUT_EXISTS",
            where=str(path),
            hint=f"give another name ({flag}) or replace it (--overwrite)",
        )
    check_place(path)
    claim(path, flag=flag)


def check_place(path: Path) -> None:
    """Raise `InputError` (`UNWRITABLE_OUTPUT`) where a folder does not exist or takes no files."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise unwritable(
            path,
            f"the folder {path.parent} does not exist",
            hint=f"make it first: mkdir -p {path.parent}",
        )
    if not os.access(folder, os.W_OK):
        raise unwritable(path, f"the folder {path.parent} cannot be written to")


def _no_file(path: Path) -> InputError:
    return unwritable(path, "there is something else than a file in that place")


def _check_target(target: Path) -> int | None:
    """Return the permissions of an existing target; raise when it cannot be replaced."""
    check_place(target)
    if not target.exists():
        return None
    status = target.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _no_file(target)
    return stat.S_IMODE(status.st_mode)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
