"""What a verb hands to the renderer: a report, the path it wrote, and whether a gate held."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.errors import GateError

if TYPE_CHECKING:
    from prunecli.report import LatencyReport


@dataclass(frozen=True)
class Outcome:
    """A finished verb.

    `output` is the file it wrote (None for verbs whose product is the report itself); `brief` is
    what `-q` prints for such a verb; `gate` is the stated gate that was not met. `following` is the
    command that people usually run next.
    """

    command: str
    report: Any
    output: Path | None = None
    brief: str | None = None
    gate: GateError | None = None
    following: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 0, or 1 where a gate was not met."""
        return 0 if self.gate is None else self.gate.exit_code


def first_missed(*gates: GateError | None) -> GateError | None:
    """Return the first gate that was not met."""
    return next((gate for gate in gates if gate is not None), None)


def at_least(flag: str, *, what: str, actual: float, required: float | None) -> GateError | None:
    """Return the gate's error where `actual` is below `required`."""
    if required is None or actual >= required:
        return None
    return GateError(
        f"{what} is {actual:.4g}, and {flag} asks for {required:.4g} or more",
        code="GATE_NOT_MET",
        where=flag,
        hint="the output and the figures are kept; only the gate was not met",
    )


def at_most(flag: str, *, what: str, actual: float, allowed: float | None) -> GateError | None:
    """Return the gate's error where `actual` is above `allowed`."""
    if allowed is None or actual <= allowed:
        return None
    return GateError(
        f"{what} is {actual:.4g}, and {flag} allows {allowed:.4g}",
        code="GATE_NOT_MET",
        where=flag,
        hint="the output and the figures are kept; only the gate was not met",
    )


def latency_gate(latency: "LatencyReport | None") -> GateError | None:
    """Return the gate's error where the cut network is too slow beyond any doubt of the timing."""
    if latency is None or latency.met is not False:
        return None
    assert latency.measured_kept is not None
    assert latency.asked is not None
    tighter = latency.asked * latency.kept / latency.measured_kept
    return GateError(
        f"the cut network takes {latency.measured_kept:.3f} of the dense one's time, and --latency "
        f"asks for {latency.asked:.3f} or less",
        code="GATE_NOT_MET",
        where="--latency",
        hint=f"the output is written; --latency {tighter:.2f} makes up for what was predicted "
        "wrong, and a quiet machine predicts better",
    )
