"""Several processes that work as one: who they are, and what they add up, share and agree on."""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

WAIT_SECONDS = 600.0
"""How long a process waits for the others: until all have come, and for each answer."""

WAIT_VARIABLE = "PRUNECLI_WAIT_SECONDS"
"""The variable that sets another time than `WAIT_SECONDS`."""


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

    def gathered(self, value: T) -> list[T]:
        """Return what every process has, in their order: plain data of any kind."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def agreed(self, value: T) -> T:
        """Return the value that the main process has, in every process: plain data of any kind."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        (told,) = broadcast_object_list([value])
        return told  # type: ignore[no-any-return]


ALONE = Processes()
"""One process that works for itself."""


def joined() -> Processes:
    """Return the group that this process belongs to by now; alone where it has joined none."""
    if "torch" not in sys.modules:
        return ALONE
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Processes(distributed.get_world_size(), distributed.get_rank())


def asked(question: Callable[[Store], T], seconds: float) -> T:
    """Return what the store says that the processes of a group have in common.

    Raises `TimeoutError` where it does not answer: it would wait for ever for a host that is gone.
    """
    from torch.distributed import distributed_c10d

    store = distributed_c10d._get_default_store()  # noqa: SLF001
    from concurrent.futures import Future

    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question(store))
        except BaseException as error:  # noqa: BLE001 - raised where the answer is asked for
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer.result(timeout=seconds)


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
