"""Milliseconds of operators at some widths, as pure data that a file holds."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prunecli.errors import LoadRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA = 1
LARGEST = 1_000_000
"""Widths and entries of a table file beyond this are nonsense."""


@dataclass(frozen=True)
class Machine:
    """What a table holds for: times of another machine or setting are other times."""

    processor: str
    provider: str
    threads: int
    batch: int
    onnxruntime: str


@dataclass(frozen=True)
class Grid:
    """Milliseconds `ms[i][j]` of an operator with `inputs[i]` and `outputs[j]` channels.

    Sizes are rounded up to multiples of `steps` before they are looked up: kernels work in blocks,
    and one that is begun costs a whole one.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[int, int]
    ms: tuple[tuple[float, ...], ...]

    def at(self, inputs: float, outputs: float) -> float:
        """Return the milliseconds at these widths, bilinear between those that were measured.

        An operator without channels takes no time.

        >>> Grid((16, 32), (16, 32), (16, 16), ((1.0, 2.0), (2.0, 4.0))).at(20, 16)
        2.0
        """
        if inputs <= 0 or outputs <= 0:
            return 0.0
        low, high, share = _between(self.inputs, _rounded(inputs, self.steps[0], self.inputs[-1]))
        rows = (self.ms[low], self.ms[high])
        left, right, part = _between(
            self.outputs, _rounded(outputs, self.steps[1], self.outputs[-1])
        )
        first, second = (row[left] + part * (row[right] - row[left]) for row in rows)
        return first + share * (second - first)


def monotone(ms: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """Return times of which none exceeds that of a wider operator.

    Noise only ever adds time, and a narrow operator could be run as a wider one; so whatever took
    longer than a wider one is taken for noise.
    """
    rows = [list(row) for row in ms]
    for i, j in itertools.product(reversed(range(len(rows))), reversed(range(len(rows[0])))):
        wider = [rows[k][m] for k, m in ((i + 1, j), (i, j + 1))
                 if k < len(rows) and m < len(rows[0])]  # fmt: skip
        rows[i][j] = min([rows[i][j], *wider])
    return tuple(tuple(row) for row in rows)


@dataclass(frozen=True)
class LatencyTable:
    """The measured operators of one network, by their shape, and the network as a whole.

    `dense_ms` is the time of the whole dense network, which has `activations` activations;
    `operators_ms` is what its measured operators add up to. `gain` is how much of a predicted
    saving a network that was cut really saved.
    """

    fingerprint: str
    machine: Machine
    dense_ms: float
    operators_ms: float
    activations: float
    grids: Mapping[str, tuple[Grid, ...]]
    gain: float = 1.0

    @property
    def rest(self) -> float:
        """Milliseconds of the dense network outside the measured operators."""
        return max(self.dense_ms - self.operators_ms, 0.0)

    @property
    def scale(self) -> float:
        """What the times of operators are multiplied with: below 1 where they exceed the whole.

        Then there is no rest: what an operator reads is in the cache more often when a neighbour
        has just left it there than when the operator runs alone.
        """
        return min(self.dense_ms / self.operators_ms, 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "schema": SCHEMA,
            "kind": "latency table",
            "fingerprint": self.fingerprint,
            "machine": asdict(self.machine),
            "dense_ms": self.dense_ms,
            "operators_ms": self.operators_ms,
            "activations": self.activations,
            "gain": self.gain,
            "operators": {
                key: [asdict(grid) for grid in grids] for key, grids in self.grids.items()
            },
        }


def parse_table(data: Any, *, where: str) -> LatencyTable:
    """Read what `to_json` wrote; else raise `LoadRefusedError` (`BAD_LATENCY_TABLE`)."""
    try:
        if data["schema"] != SCHEMA or data["kind"] != "latency table":
            raise bad_table("it is of another kind or version", where)
        return LatencyTable(
            fingerprint=_text(data["fingerprint"]),
            machine=_machine(data["machine"]),
            dense_ms=_positive(data["dense_ms"]),
            operators_ms=_positive(data["operators_ms"]),
            activations=_positive(data["activations"]),
            grids={
                _text(key): tuple(_grid(grid) for grid in grids)
                for key, grids in data["operators"].items()
            },
            gain=_positive(data.get("gain", 1.0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise bad_table(f"{type(error).__name__}: {error}", where) from error


def bad_table(reason: str, where: str) -> LoadRefusedError:
    """Return the error of a file that is no latency table."""
    return LoadRefusedError(
        f"this is no latency table that can be used: {reason}",
        code="BAD_LATENCY_TABLE",
        where=where,
        hint="remove the file, or name another one: a table that is missing is measured",
    )


def _machine(data: Mapping[str, Any]) -> Machine:
    return Machine(
        processor=_text(data["processor"]),
        provider=_text(data["provider"]),
        threads=_count(data["threads"]),
        batch=_count(data["batch"]),
        onnxruntime=_text(data["onnxruntime"]),
    )


def _grid(data: Mapping[str, Any]) -> Grid:
    inputs, outputs = (_rising(data[side]) for side in ("inputs", "outputs"))
    first, second = (_count(step) for step in data["steps"])
    rows = tuple(tuple(_positive(value) for value in row) for row in data["ms"])
    if len(rows) != len(inputs) or any(len(row) != len(outputs) for row in rows):
        raise ValueError("as many times as widths are needed")
    return Grid(inputs, outputs, (first, second), rows)


def _rising(values: Sequence[Any]) -> tuple[int, ...]:
    numbers = tuple(_count(value) for value in values)
    if not numbers or any(a >= b for a, b in itertools.pairwise(numbers)):
        raise ValueError("widths have to rise")
    return numbers


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST:
        raise ValueError(f"{value!r} is no count")
    return value


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{value!r} is not above 0")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _rounded(size: float, step: int, most: int) -> float:
    """Return the next multiple of `step`, but no more than what was measured at most."""
    return min(math.ceil(size / step - 1e-9) * step, most)


def _between(knots: Sequence[int], size: float) -> tuple[int, int, float]:
    """Return the positions on either side of `size`, and how far it is from the first of them."""
    high = min(bisect_left(knots, size), len(knots) - 1)
    low = max(high - 1, 0)
    apart = knots[high] - knots[low]
    return low, high, min(max((size - knots[low]) / apart, 0.0), 1.0) if apart else 0.0
