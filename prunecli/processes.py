"""Several processes of one launcher that work as one: how many, what they add up, who speaks."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from prunecli.errors import DeviceError, InputError, PruneError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from torch import Tensor

T = TypeVar("T")

WAIT_SECONDS = 600.0
"""How long a process waits for the others: until all have come, and for each answer."""

WAIT_VARIABLE = "PRUNECLI_WAIT_SECONDS"
"""The variable that sets another time than `WAIT_SECONDS`."""

MAIN_FIRST_SECONDS = 2.0
"""How much earlier the first process may tell an error that all of them have."""

UNMET_SECONDS = 10.0
"""The same before they have met: the first process may still be starting."""

_SIZE = "WORLD_SIZE"
_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_OTHER_SIZES = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE")
_ERROR = "prunecli/error"
_GUIDE = "start all processes with torchrun (prunecli guide processes)"


@dataclass(frozen=True)
class Processes:
    """How many processes work as one, and which of them this is, counted from 0."""

    count: int = 1
    index: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.index == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return what this process does of a work that all of them do together."""
        return items[self.index :: self.count]

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes; that of one process is its own."""
        if self.count == 1:
            return value
        from accelerate import PartialState
        from accelerate.utils import reduce

        summed: Tensor = reduce(value.to(PartialState().device), reduction="sum")
        return summed.to(value.device)

    def from_main(self, value: Tensor) -> Tensor:
        """Return the tensor that the main process has, in every process."""
        if self.count == 1:
            return value
        from accelerate import PartialState
        from accelerate.utils import broadcast

        told: Tensor = broadcast(value.to(PartialState().device))
        return told.to(value.device)

    def told_bytes(self, value: bytes) -> bytes:
        """Return the bytes that the main process has, in every process."""
        if self.count == 1:
            return value
        import torch

        size = int(self.from_main(torch.tensor(len(value))))
        told = torch.zeros(size, dtype=torch.uint8)
        if self.is_main:
            told = torch.frombuffer(bytearray(value), dtype=torch.uint8) if size else told
        return self.from_main(told).numpy().tobytes() if size else b""

    def agreed(self, value: T) -> T:
        """Return the value that the main process has, in every process: plain data of any kind."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        (told,) = broadcast_object_list([value])
        return told  # type: ignore[no-any-return]


ALONE = Processes()
"""One process that works for itself."""


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
    import torch
    from accelerate import PartialState
    from torch import distributed

    ready = distributed.is_available() and distributed.is_initialized()
    known = Processes(distributed.get_world_size()) if ready else started(os.environ)
    if known.count == 1:
        state = PartialState()
    elif ready or PartialState._shared_state:  # noqa: SLF001 - how accelerate itself asks
        state = PartialState(cpu=not torch.accelerator.is_available())
    else:
        state = _met(known)
    if state.num_processes != known.count:
        raise _no_group(
            f"{known.count} processes were started, and this one works in a group of "
            f"{state.num_processes}"
        )
    return Processes(state.num_processes, state.process_index)


def joined() -> Processes:
    """Return the group that this process belongs to by now; alone where it has joined none."""
    if "torch" not in sys.modules:
        return ALONE
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Processes(distributed.get_world_size(), distributed.get_rank())


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


def wait_seconds(environment: Mapping[str, str]) -> float:
    """Return how long a process waits for the others; raise `InputError` for no time."""
    said = environment.get(WAIT_VARIABLE)
    try:
        seconds = WAIT_SECONDS if not said else float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(
            f"{WAIT_VARIABLE} is {said!r}",
            code="BAD_OPTION",
            hint="give a number of seconds above 0",
        )
    return seconds


def is_lost(error: BaseException) -> bool:
    """Tell whether an error says that another process of the group does not answer any more."""
    if joined().count == 1:
        return False
    from torch import distributed

    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def lost_process(hint: str = "see why it ended, and run the command again") -> DeviceError:
    """Return the error of a process whose group has lost another one."""
    own = joined()
    return DeviceError(
        f"another one of the {own.count} processes has ended, or did not answer for "
        f"{wait_seconds(os.environ):g} s",
        code="LOST_PROCESS",
        where=f"process {own.index}",
        hint=hint,
    )


def told_elsewhere(error: PruneError, own: Processes) -> int | None:
    """Return the exit code of the error that another process tells; None where this one is to.

    The first process speaks of what all of them run into, another one of what it alone does. A
    launcher ends all others as soon as one has ended: whoever is to speak is not interrupted, and
    whoever is silent waits for that one.
    """
    met = joined().count > 1
    if not own.is_main:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if met and error.code != "LOST_PROCESS":
            time.sleep(MAIN_FIRST_SECONDS)
        elif error.code not in {"LOST_PROCESS", "MISSING_PROCESSES"}:
            time.sleep(UNMET_SECONDS)  # all have read the same command
            return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return _claimed(error, own) if met else None


def _claimed(error: PruneError, own: Processes) -> int | None:
    """Return the exit code of the error that another process told first; None where none did."""
    from torch.distributed import distributed_c10d

    store = distributed_c10d._get_default_store()  # noqa: SLF001
    mine = json.dumps([own.index, error.exit_code])
    try:
        first = store.compare_set(_ERROR, "", mine).decode()
    except RuntimeError:  # the store went with the process that kept it
        return None
    return None if first == mine else int(json.loads(first)[1])


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
