"""Who writes what: one run to an output, and nothing left of runs that are dead."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import socket
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P = ParamSpec("P")
R = TypeVar("R")

_LOCK = ".prunecli.lock"
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)

_scopes: list[ExitStack] = []
_held: set[Path] = set()
_cleaned: set[Path] = set()


def claiming(function: Callable[P, R]) -> Callable[P, R]:
    """Return a verb that keeps what it claims (`claim`) until it is done."""

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> R:
        with ExitStack() as scope:
            _scopes.append(scope)
            scope.callback(_scopes.remove, scope)
            return function(*arguments, **options)

    return run


def claim(path: Path, *, flag: str) -> None:
    """Keep an output for this run until the verb that is running ends, or the process dies.

    Raises `InputError` (`OUTPUT_BUSY`) where another run has it. Of several processes that train
    together the first one writes, and claims.
    """
    target = Path(os.path.realpath(path))
    if not _scopes or target in _held or os.environ.get("RANK", "0") != "0":
        return
    _scopes[-1].enter_context(_locked(target, path, flag=flag))


@contextmanager
def _locked(target: Path, path: Path, *, flag: str) -> Iterator[None]:
    place = target.with_name(f".{target.name}{_LOCK}")
    descriptor = _lock(place, path, flag=flag)
    _held.add(target)
    try:
        yield
    finally:
        _held.discard(target)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                place.unlink()
            os.close(descriptor)


def _lock(place: Path, path: Path, *, flag: str) -> int | None:
    """Return the descriptor of a lock; None where the file system knows no locks."""
    while True:
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:  # what is wrong with the folder is said where it is written to
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise InputError(
                "another run is about to write this output",
                code="OUTPUT_BUSY",
                where=str(path),
                hint=f"wait for process {owner or '(unknown)'}, or give another name: {flag}",
            ) from error
        except OSError:
            os.close(descriptor)
            return None
        if _is_still(place, descriptor):
            with contextlib.suppress(OSError):  # no room even for that: the lock holds all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return descriptor
        os.close(descriptor)  # its owner has just removed it: begin again


def _is_still(place: Path, descriptor: int) -> bool:
    """Tell whether a locked file is the one that has its name."""
    try:
        return os.path.samestat(place.stat(), os.fstat(descriptor))
    except OSError:
        return False


@functools.cache
def _host() -> str:
    """Return what tells apart the machines and containers that may share a folder."""
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        space = 0
    return blake2b(f"{socket.gethostname()} {space}".encode(), digest_size=4).hexdigest()


def mark() -> str:
    """Return what the name of a temporary file says of the process that makes it."""
    return f"{_host()}-{os.getpid()}"


def forget_dead(folder: Path) -> None:
    """Remove what runs of this machine that are dead left in a folder; once in a process."""
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and _is_left_over(entry):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    if entry.name.endswith(_LOCK):
        return _is_free(Path(entry.path))
    made = _TEMPORARY.fullmatch(entry.name)
    return made is not None and made["host"] == _host() and not _lives(int(made["process"]))


def _is_free(place: Path) -> bool:
    """Tell whether nobody holds a lock."""
    descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True
