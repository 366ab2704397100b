"""What a network may cost after the cut, as pure data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

CostKind = Literal["flops", "params", "activations", "bytes", "channels"]
COST_KINDS: tuple[str, ...] = get_args(CostKind)

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_QUANTITY = re.compile(
    r"^([+-]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([kmgt]?)(i?b)?$", re.IGNORECASE
)


@dataclass(frozen=True)
class Limit:
    """A ceiling on one cost: a kept `fraction` of the dense cost, or an `absolute` amount."""

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
        amount = f"{self.fraction:g}" if self.absolute is None else format_quantity(self.absolute)
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


def make_budget(
    *,
    flops: float | str | None = None,
    params: float | str | None = None,
    activations: float | str | None = None,
    bytes: float | str | None = None,  # noqa: A002 - the option is called --bytes
    sparsity: float | str | None = None,
    needed: bool = True,
) -> Budget:
    """Build a budget from what people type.

    A number up to 1 is the fraction to keep; `sparsity` is the share of channels to *remove*.
    A number with a unit (`150M`, `1.2G`, `4MB`) is an absolute ceiling. Unless it is `needed`, a
    budget may have no limit.

    >>> print(make_budget(flops=0.5, params="1.5M"))
    flops <= 0.5, params <= 1.5M
    """
    given = {"flops": flops, "params": params, "activations": activations, "bytes": bytes}
    limits = [_limit(kind, value) for kind, value in given.items() if value is not None]
    if sparsity is not None:
        removed = _limit("sparsity", sparsity, whole="removes every channel")
        if removed.fraction is None:
            raise _bad("sparsity", sparsity, "is a share of channels, not an amount")
        limits.append(Limit("channels", fraction=1.0 - removed.fraction))
    if not limits and needed:
        raise InputError(
            "no budget was given",
            code="NO_BUDGET",
            hint="say how much to keep, e.g. --flops 0.5, --params 1.5M or --sparsity 0.3",
        )
    return Budget(tuple(limits))


def format_quantity(amount: float) -> str:
    """Write an amount with three significant digits and a unit.

    >>> format_quantity(4_089_184_256), format_quantity(512)
    ('4.09G', '512')
    """
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(amount) >= factor:
            return f"{amount / factor:.3g}{unit}"
    return f"{amount:.3g}"


def _limit(kind: str, value: float | str, *, whole: str = "leaves nothing to cut") -> Limit:
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


def _bad(kind: str, value: float | str, why: str) -> InputError:
    meaning = "to remove" if kind == "sparsity" else "to keep"
    return InputError(
        f"--{kind} {value} {why}",
        code="BAD_BUDGET",
        hint=f"give a fraction {meaning} between 0 and 1 (0.5), or an amount with a unit (150M)"
        if kind != "sparsity"
        else "give the share of channels to remove, between 0 and 1 (0.5)",
    )
