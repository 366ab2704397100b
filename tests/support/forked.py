"""Run a function in a copy of this process: imports are paid once, and whatever ends it is seen."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), what it said, how long it took."""

    code: int
    said: str
    seconds: float


def forked(
    function: Callable[[], int | None],
    *,
    log: Path,
    limits: dict[int, int] | None = None,
    after: float | None = None,
    number: signal.Signals = signal.SIGKILL,
    most: float = 300.0,
) -> Ended:
    """Run `function` in a child within resource limits; send it a signal `after` some seconds.

    A child that takes more than `most` seconds is killed.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 98
        try:
            code = _work(function, log, limits or {})
        finally:
            os._exit(code)  # whatever happens, a child never goes on as its parent
    end = start + most
    due = None if after is None else start + after
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        now = time.monotonic()
        if due is not None and now >= due:
            os.kill(child, number)
            due = None
        if now > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    said = log.read_text(errors="replace") if log.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), said, time.monotonic() - start)


def _work(function: Callable[[], int | None], log: Path, limits: dict[int, int]) -> int:
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)  # a test may have put others in their place
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind an `&`
        for kind, most in limits.items():
            resource.setrlimit(kind, (most, most))
        return function() or 0
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - the test looks for it
        traceback.print_exc()
        return 99


def more_memory(count: int) -> dict[int, int]:
    """Return the limit of `count` bytes beyond what this process has mapped."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return {resource.RLIMIT_AS: mapped + count}
