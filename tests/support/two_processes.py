"""Two processes of `torchrun` that run one script together, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

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
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(path)], check=True, env=environment, timeout=300)
    one, two = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    return one, two
