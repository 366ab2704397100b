"""Several processes of one launcher that work as one."""

from prunecli.processes.ending import is_lost, lost_process, told_elsewhere
from prunecli.processes.group import ALONE, Processes, joined
from prunecli.processes.meeting import forget, join, leave, started

__all__ = [
    "ALONE",
    "Processes",
    "forget",
    "is_lost",
    "join",
    "joined",
    "leave",
    "lost_process",
    "started",
    "told_elsewhere",
]
