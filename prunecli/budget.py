"""What a network may cost after the cut, as pure data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from prunecli.cost.kinds import COST_KINDS, budget_kinds, cost_label, kind_of
from prunecli.errors import InputError
from prunecli.wording import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_QUANTITY = re.compile(
    r"^([+-]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([kmgt]?)(i?b)?$", re.IGNORECASE
)
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_TIME = re.compile(r"^([0-9]*\.?[0-9]+)\s*(us|ms|s)$", re.IGNORECASE)


@dataclass(frozen=True)
class Limit:
    """A ceiling on one cost: a kept `fraction` of the dense cost, or an `absolute` amount.

    Latencies are in milliseconds.
    """

    kind: str
    fraction: float | None = None
    absolute: float | None = None

    def ceiling(self, dense: float) -> float:
        """Return the highest allowed cost, in the unit of `dense`."""
        if self.absolute is not None:
            return self.absolute
        assert self.fraction is not None
        return self.fraction * dense

    def __str__(self) -> str:
        amount = (
            f"{self.fraction:g}" if self.absolute is None else format_cost(self.kind, self.absolute)
        )
        return f"{self.kind} <= {amount}"


@dataclass(frozen=True)
class Budget:
    """All limits that a cut has to keep at once."""

    limits: tuple[Limit, ...]

    def to_json(self) -> dict[str, dict[str, float]]:
        """Return `{kind: {"fraction" | "absolute": value}}`."""
        return {
            limit.kind: (
                {"absolute": limit.absolute}
                if limit.absolute is not None
                else {"fraction": float(limit.fraction or 0.0)}
            )
            for limit in self.limits
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, float]]) -> Budget:
        """Read what `to_json` wrote."""
        return cls(
            tuple(
                Limit(kind, fraction=value.get("fraction"), absolute=value.get("absolute"))
                for kind, value in data.items()
            )
        )

    def __str__(self) -> str:
        return ", ".join(str(limit) for limit in self.limits)


def make_budget(*, needed: bool = True, **amounts: float | str | None) -> Budget:
    """Build a budget from what people type: amounts by the name of the budget.

    A number up to 1 is the fraction to keep; `sparsity` is the share of channels to *remove*.
    A number with a unit (`150M`, `1.2G`, `4MB`, a latency of `5ms`) is an absolute ceiling. A
    `speedup` of 2 is a latency of a half. Unless
    it is `needed`, a budget may have no limit. Raises `InputError` for what is no kind of cost.

    >>> print(make_budget(flops=0.5, params="1.5M", latency="5ms"))
    flops <= 0.5, params <= 1.5M, latency <= 5 ms
    """
    amounts = _as_latency(amounts)
    kinds = budget_kinds()
    if unknown := sorted(amounts.keys() - kinds.keys()):
        raise InputError(
            f"there is no budget called {unknown[0]!r}",
            code="BAD_BUDGET",
            hint=f"limit one of {', '.join(kinds)}",
        )
    given = {name: amounts.get(name) for name in kinds}
    limits = tuple(_limit(name, value) for name, value in given.items() if value is not None)
    if not limits and needed:
        raise InputError(
            "no budget was given",
            code="NO_BUDGET",
            hint="say how much to keep, e.g. --flops 0.5, --params 1.5M or --sparsity 0.3",
        )
    return Budget(limits)


def _as_latency(amounts: dict[str, float | str | None]) -> dict[str, float | str | None]:
    """Return amounts with a speed-up as the share of the time that it leaves."""
    speedup = amounts.pop("speedup", None)
    if speedup is None:
        return amounts
    text = str(speedup).strip().removesuffix("x")
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 < factor < math.inf:
        raise InputError(
            f"--speedup {speedup} is no factor above 1",
            code="BAD_BUDGET",
            hint="say how many times as fast the result is to be: --speedup 2",
        )
    if amounts.get("latency") is not None:
        raise InputError(
            "--speedup and --latency ask for the same thing",
            code="BAD_BUDGET",
            hint="leave one of them out",
        )
    return {**amounts, "latency": 1 / factor}


MOST_POINTS = 50
"""A sweep has no more budgets than this: every one of them is a cut and a pass over the images."""


def swept() -> list[str]:
    """Return the budgets that can be swept: of costs that need no table of measured times."""
    return [name for name, kind in budget_kinds().items() if COST_KINDS.get(kind).terms is not None]


@dataclass(frozen=True)
class Sweep:
    """Budgets over a range of one cost: `kind` is that of their limit, `budgets` run downwards."""

    kind: str
    budgets: tuple[Budget, ...]


def parse_sweep(text: str) -> Sweep:
    """Read `flops=0.3:0.9:0.1`: what to sweep, the first fraction, the last one, and the step.

    Both ends are budgets. Raises `InputError` (`BAD_SWEEP`) for anything else.

    >>> sweep = parse_sweep("flops=0.3:0.9:0.3")
    >>> sweep.kind, [str(budget) for budget in sweep.budgets]
    ('flops', ['flops <= 0.9', 'flops <= 0.6', 'flops <= 0.3'])
    """
    name, equals, span = text.partition("=")
    name = name.strip()
    if not equals or name not in swept():
        raise _bad_sweep(text, f"says nothing to sweep: {', '.join(swept())}")
    parts = span.split(":")
    if len(parts) != 3:
        raise _bad_sweep(text, "needs three numbers: first, last and step")
    try:
        low, high, step = (Decimal(part.strip()) for part in parts)
    except InvalidOperation:
        raise _bad_sweep(text, "has a part that is not a number") from None
    if not all(part.is_finite() for part in (low, high, step)) or step <= 0:
        raise _bad_sweep(text, "needs a step above 0")
    low, high = min(low, high), max(low, high)
    if not 0 < low <= high < 1:
        raise _bad_sweep(text, "leaves the fractions between 0 and 1")
    count = int((high - low) / step) + 1
    if count > MOST_POINTS:
        raise _bad_sweep(text, f"makes {count} budgets; {MOST_POINTS} is the most")
    points = [str((low + at * step).normalize()) for at in range(count)]
    budgets = [make_budget(**{name: point}, needed=True) for point in points]
    kept_first = budgets if name == "sparsity" else budgets[::-1]
    return Sweep(budgets[0].limits[0].kind, tuple(kept_first))


def _bad_sweep(text: str, why: str) -> InputError:
    return InputError(
        f"--sweep {text} {why}",
        code="BAD_SWEEP",
        hint="give a cost and its fractions as first:last:step, such as flops=0.3:0.9:0.1",
    )


def format_quantity(amount: float) -> str:
    """Write an amount with three significant digits and a unit.

    >>> format_quantity(4_089_184_256), format_quantity(512)
    ('4.09G', '512')
    """
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(amount) >= factor:
            return f"{amount / factor:.3g}{unit}"
    return f"{amount:.3g}"


def format_bytes(count: int) -> str:
    """Write a number of bytes.

    >>> format_bytes(344_000), format_bytes(12)
    ('344kB', '12 B')
    """
    return f"{format_quantity(count)}B" if count >= 1000 else f"{count} B"


def format_cost(kind: str, amount: float) -> str:
    """Write an amount of one kind of cost with its unit.

    >>> format_cost("latency", 5.25), format_cost("flops", 4.1e9)
    ('5.25 ms', '4.1G')
    """
    return WRITTEN[kind_of(kind).unit](amount)


WRITTEN: dict[str, Callable[[float], str]] = {
    "": format_quantity,
    "ms": lambda amount: f"{amount:.3g} ms",
}
"""How amounts are written, by the unit of a kind of cost."""


def _limit(name: str, value: float | str) -> Limit:
    """Read a budget: a share to keep (of some costs, to remove), or an amount with its unit."""
    kind = budget_kinds()[name]
    known = COST_KINDS.get(kind)
    if known.removed_as:
        removed = _amount(name, value, whole=f"removes every {kind.removesuffix('s')}")
        if removed.fraction is None:
            raise _bad(name, value, f"is a share of {kind}, not an amount")
        return Limit(kind, fraction=1.0 - removed.fraction)
    return READERS[known.unit](name, value)


def _time(kind: str, value: float | str) -> Limit:
    """Read a time: a share to keep, or a time with its unit."""
    match = _TIME.match(str(value).strip())
    if match is not None and float(match[1]) > 0:
        return Limit(kind, absolute=float(match[1]) * _MILLISECONDS[match[2].lower()])
    limit = _amount(kind, value)
    if limit.absolute is not None:
        raise _bad(kind, value, "has no unit of time")
    return limit


def _amount(kind: str, value: float | str, *, whole: str = "leaves nothing to cut") -> Limit:
    text = str(value).strip()
    percent = text.endswith("%")
    match = _QUANTITY.match(text.rstrip("%").strip())
    if match is None:
        raise _bad(kind, value, "is not a number")
    number, unit, byte = float(match[1]), match[2].lower(), match[3]
    if not math.isfinite(number) or number <= 0:
        raise _bad(kind, value, "must be above 0")
    if unit or byte:
        factor = (
            _UNITS[unit]
            if byte is None or byte.lower() == "b"
            else 1024 ** "kmgt".index(unit) * 1024
        )
        return Limit(kind, absolute=number * factor)
    number = number / 100 if percent else number
    if number == 1:
        raise _bad(kind, value, whole)
    if number > 1:
        raise _bad(kind, value, "is above 1 and has no unit")
    return Limit(kind, fraction=number)


READERS: dict[str, Callable[[str, float | str], Limit]] = {"": _amount, "ms": _time}
"""How budgets are read, by the unit of a kind of cost."""

EXAMPLES = {"": "150M", "ms": "5ms"}


def _bad(name: str, value: float | str, why: str) -> InputError:
    kind = budget_kinds()[name]
    known = COST_KINDS.get(kind)
    return InputError(
        f"--{name.replace('_', '-')} {value} {why}",
        code="BAD_BUDGET",
        hint=f"give the share of {kind} to remove, between 0 and 1 (0.5)"
        if known.removed_as
        else "give a fraction to keep between 0 and 1 (0.5), or an amount with a unit "
        f"({EXAMPLES[known.unit]})",
    )


def budget_text(budget: Mapping[str, Mapping[str, float]] | None) -> str:
    """Say what was to be kept: `at most 50.0 % of the FLOPs`."""
    parts = []
    for kind, limit in (budget or {}).items():
        name = cost_label(kind)
        if "absolute" in limit:
            parts.append(f"at most {format_cost(kind, limit['absolute'])} {name}")
        elif "fraction" in limit:
            parts.append(f"at most {percent(limit['fraction'])} of the {name}")
    return ", ".join(parts)
