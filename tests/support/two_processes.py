"""Several processes that work together on the CPU: scripts under `torchrun`, and the command."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
PRUNECLI = (sys.executable, "-m", "prunecli")
ON_CPU = {
    **os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "COLUMNS": "100",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # torch itself warns of hosts without a name
}  # fmt: skip

BEFORE = """
import sys
sys.path[:0] = [{root!r}]
from pathlib import Path
import torch
folder = Path({folder!r})
"""

AFTER = """
torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")
torch.distributed.destroy_process_group()
"""


def in_two_processes(script: str, folder: Path) -> tuple[Any, Any]:
    """Return what either process leaves in the variable `found`; `folder` is one for both."""
    before = BEFORE.format(root=str(Path(__file__).parents[2]), folder=str(folder))
    path = folder / "parallel.py"
    path.write_text(before + script + AFTER)
    subprocess.run([*TORCHRUN, str(path)], check=True, env=ON_CPU, timeout=300)
    one, two = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    return one, two


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def member(rank: int, count: int, *, port: int, address: str = "127.0.0.1") -> dict[str, str]:
    """Return what a launcher would say to one of several processes."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "MASTER_ADDR": address, "MASTER_PORT": str(port),
    }  # fmt: skip


def begin(
    words: Sequence[object],
    folder: Path,
    environment: Mapping[str, str],
    *,
    before: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start the command as one process of a group; `before` is what starts it in another place."""
    return subprocess.Popen(
        [*before, *PRUNECLI, *map(str, words)],
        cwd=folder,
        env={**ON_CPU, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], *, timeout: float = 120) -> tuple[int, str, str]:
    """Return the exit code of a process, and what it printed; one that hangs is killed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def wait_for_epoch(log: Path, epoch: int, *processes: subprocess.Popen[str]) -> None:
    """Return when the log has a row for an epoch; none of the processes may end before that."""
    for _ in range(2400):
        if log.exists() and len(log.read_text().splitlines()) >= epoch:
            return
        assert all(each.poll() is None for each in processes), "ended too early"
        time.sleep(0.05)
    raise AssertionError("no such epoch")
