"""Every error that prunecli raises on purpose: a stable code, what, where, and what to do next."""

from __future__ import annotations

import difflib
import errno
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Collection


class PruneError(Exception):
    """Base of all errors meant for the user.

    `code` is stable and upper-case (`UNSAFE_PICKLE`), `where` names the file, layer or node, and
    `hint` says what to do next. `exit_code` is the process exit status that the command line uses.
    """

    exit_code: ClassVar[int] = 2

    def __init__(
        self, message: str, *, code: str, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message if self.where is None else f"{self.message} ({self.where})"]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, str | None]:
        """Return the `error` object of the JSON envelope."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
        }


_NO_MEMORY = (
    "bad alloc",
    "bad_alloc",
    "can't allocate memory",
    "can't start new thread",
    "cannot allocate memory",
    "error return without exception set",  # what C code says whose allocation failed
    "failed to allocate",
    "failed to map segment",
    "not enough memory",
    "out of memory",
    "unable to allocate",
)
"""What libraries say of too little memory, each in its own type of error."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or one that it comes from, is one of too little memory."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        known = isinstance(current, MemoryError) or type(current).__name__ == "OutOfMemoryError"
        said = str(current).lower()
        if known or getattr(current, "errno", None) == errno.ENOMEM:
            return True
        if any(sign in said for sign in _NO_MEMORY):
            return True
        current = current.__cause__ or current.__context__
    return False


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class GateError(PruneError):
    """A stated gate was not met: an infeasible budget, `--min-accuracy`, `--min-speedup`."""

    exit_code = 1


class InfeasibleBudgetError(GateError):
    """A budget is below what the narrowest network costs: `lowest` is the share of `kind` left."""

    def __init__(
        self, message: str, *, kind: str, lowest: float, where: str | None = None, hint: str
    ) -> None:
        super().__init__(message, code="INFEASIBLE_BUDGET", where=where, hint=hint)
        self.kind = kind
        self.lowest = lowest


class InputError(PruneError):
    """Usage or input that cannot be worked with."""

    exit_code = 2


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the question about the nearest of the known names, a space behind it; or nothing.

    >>> did_you_mean("gredy", ["greedy", "global"]), did_you_mean("x", ["greedy"])
    ("did you mean 'greedy'? ", '')
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def unknown_name(kind: str, name: str, known: Collection[str]) -> InputError:
    """Return the error of a name under which nothing of a kind is known."""
    return InputError(
        f"unknown {kind} {name!r}",
        code=f"UNKNOWN_{kind.upper().replace(' ', '_')}",
        hint=f"{did_you_mean(name, known)}Known: {', '.join(known)}",
    )


class GraphError(PruneError):
    """The network cannot be traced, or holds nothing that can be cut."""

    exit_code = 3


class LoadRefusedError(PruneError):
    """A file that is corrupt, or that would have to execute code to be read."""

    exit_code = 4


class ProofError(PruneError):
    """A cut that is not equal to its mask, or an export that is not equal to its source."""

    exit_code = 5


class DeviceError(PruneError):
    """A device or an execution provider that was asked for and is not there."""

    exit_code = 6


class InterruptedRunError(PruneError):
    """The run was interrupted; what was reached is saved where `hint` says."""

    exit_code = 130


class TerminatedRunError(InterruptedRunError):
    """The run was asked to end (SIGTERM); all else as where it was interrupted."""

    exit_code = 143
