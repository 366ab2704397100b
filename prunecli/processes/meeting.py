"""How processes come together: what their launcher says of them, and the group that they form."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prunecli.errors import DeviceError
from prunecli.processes.group import ALONE, WAIT_VARIABLE, Processes, joined, wait_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

_SIZE = "WORLD_SIZE"
_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_OTHER_SIZES = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE")
_GUIDE = "start all processes with torchrun (prunecli guide processes)"


def started(environment: Mapping[str, str]) -> Processes:
    """Return what a launcher says of this process: its number, of how many.

    A reservation (`SLURM_NTASKS`) starts no process, and says nothing. Raises `DeviceError`
    (`NO_PROCESS_GROUP`) where several are asked for, and something is missing to find them.
    """
    if not environment.get(_SIZE):
        _check_unsaid(environment)
        return ALONE
    count = _number(environment, _SIZE)
    local = _number(environment, "LOCAL_WORLD_SIZE", default=1)
    if count < 1 or local > count:
        raise _no_group(f"{_SIZE} is {count}, and LOCAL_WORLD_SIZE is {local}")
    if count == 1:
        return ALONE
    missing = [name for name in _NEEDED if not environment.get(name)]
    if missing:
        raise _no_group(f"{_SIZE} is {count}, but {', '.join(missing)}: not set")
    index = _number(environment, "RANK")
    if not 0 <= index < count:
        raise _no_group(f"RANK is {index}, and {_SIZE} is {count}")
    return Processes(count, index)


def forget(environment: MutableMapping[str, str]) -> None:
    """Take out what a launcher says of other processes: this one works for itself from now on."""
    for name in (_SIZE, *_NEEDED, *_OTHER_SIZES):
        environment.pop(name, None)


def join() -> Processes:
    """Come together with the other processes of the launcher; alone where there is none.

    That is done once, and returns the same every time. Raises `DeviceError`: `NO_PROCESS_GROUP`
    where as many as the environment asks for do not become a group, `MISSING_PROCESSES` where they
    do not come in time (`WAIT_SECONDS`).
    """
    from torch import distributed

    ready = distributed.is_available() and distributed.is_initialized()
    known = Processes(distributed.get_world_size()) if ready else started(os.environ)
    if known.count == 1:
        return ALONE
    import torch
    from accelerate import PartialState

    if ready or PartialState._shared_state:  # noqa: SLF001 - how accelerate itself asks
        state = PartialState(cpu=not torch.accelerator.is_available())
    else:
        state = _met(known)
    if state.num_processes != known.count:
        raise _no_group(
            f"{known.count} processes were started, and this one works in a group of "
            f"{state.num_processes}"
        )
    return Processes(state.num_processes, state.process_index)


def leave() -> None:
    """Leave the group of processes; nothing where there is none."""
    if joined().count > 1:
        from torch import distributed

        distributed.destroy_process_group()


def _met(own: Processes) -> Any:
    """Return accelerate's state of a group that all its processes have come to."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env
    from torch.distributed.rendezvous import rendezvous

    seconds = wait_seconds(os.environ)
    timeout = timedelta(seconds=seconds)
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    try:
        store, _, _ = next(rendezvous("env://", timeout=timeout))
        return PartialState(
            cpu=cpu, store=store, rank=own.index, world_size=own.count, timeout=timeout
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise DeviceError(
            f"process {own.index} has waited for the other {own.count - 1} for {seconds:g} s: not "
            f"all {own.count} have come",
            code="MISSING_PROCESSES",
            where=place,
            hint=f"see that all {own.count} are started and reach {place}; {WAIT_VARIABLE} sets "
            "another time",
        ) from error


def _check_unsaid(environment: Mapping[str, str]) -> None:
    """Raise `DeviceError` where several processes are asked for, but not how to find them."""
    for name in _OTHER_SIZES:
        if _number(environment, name, default=1) > 1:
            raise _no_group(f"{name} is {environment[name]}, but {_SIZE} is not set")
    if "ACCELERATE_USE_CPU" in environment and environment.get("MASTER_ADDR"):
        raise _no_group("accelerate launch was asked for several processes, and has started one")


def _number(environment: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    said = environment.get(name)
    if not said and default is not None:
        return default
    try:
        return int(said or "")
    except ValueError:
        raise _no_group(f"{name} is {said!r}, which is no number") from None


def _no_group(problem: str) -> DeviceError:
    return DeviceError(
        f"several processes were asked for, and they do not become a group: {problem}",
        code="NO_PROCESS_GROUP",
        hint=f"{_GUIDE}, or unset {_SIZE} and its like to run in one process",
    )
