"""Several processes of one launcher that work as one."""

from prunecli.processes.ending import is_lost, lost_process, told_elsewhere
from prunecli.processes.group import ALONE, Processes, joined
from prunecli.processes.helping import pooled, shared, sharing
from prunecli.processes.meeting import forget, join, leave, started
from prunecli.processes.waiting import done_by_main

__all__ = [
    "ALONE",
    "Processes",
    "done_by_main",
    "forget",
    "is_lost",
    "join",
    "joined",
    "leave",
    "lost_process",
    "pooled",
    "shared",
    "sharing",
    "started",
    "told_elsewhere",
]
