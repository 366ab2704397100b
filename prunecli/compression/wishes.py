"""Wishes about a result: the budgets that they come to, and whether a result meets them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunecli.budget import Budget, Limit, format_bytes, format_cost, make_budget
from prunecli.errors import InputError
from prunecli.report import Wish
from prunecli.wording import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prunecli.options.compress import WishOptions
    from prunecli.report import BenchmarkRow, ModelFigures

SMALLEST = 0.05
"""The share of the FLOPs that a search for the smallest model within a drop goes down to."""

KINDS = {"size": "bytes"}
"""Kinds of cost behind wishes that are called otherwise."""


@dataclass(frozen=True)
class Wishes:
    """What a result is to be: `limits` of its cost, and the largest drop in accuracy.

    `asked` holds the limits by the names of the wishes; none where a drop alone is given.
    """

    asked: Mapping[str, Limit]
    speedup: float | None
    max_drop: float | None

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits at full strength; those of a search where a drop alone is given."""
        return tuple(self.asked.values()) or (Limit("flops", fraction=SMALLEST),)

    @property
    def timed(self) -> bool:
        """Whether milliseconds are wished for."""
        return any(limit.kind == "latency" for limit in self.limits)

    def budget(
        self, strength: float, dense: Mapping[str, float | None], scale: Mapping[str, float]
    ) -> Budget:
        """Return the budget at a strength from 0 (nothing goes) to 1 (all that was wished for).

        `dense` are the costs of the original, needed below full strength. `scale` tightens kinds
        of which an earlier result was measured to keep more than its budget said.
        """
        return Budget(
            tuple(
                _scaled(_eased(limit, strength, dense), scale.get(limit.kind, 1.0))
                for limit in self.limits
            )
        )


def read_wishes(options: WishOptions) -> Wishes:
    """Return what was wished for; raise `InputError` for nothing, or for a contradiction."""
    if options.speedup is not None and options.latency is not None:
        raise InputError(
            "--speedup and --latency wish for the same thing",
            code="BAD_WISH",
            hint="leave one of them out",
        )
    amounts = {
        "flops": options.flops,
        "params": options.params,
        "size": options.size,
        "latency": options.latency,
    }
    asked = {
        name: make_budget(needed=True, **{KINDS.get(name, name): amount}).limits[0]
        for name, amount in amounts.items()
        if amount is not None
    }
    if options.speedup is not None:
        asked["speedup"] = make_budget(speedup=options.speedup).limits[0]
    if not asked and options.max_drop is None:
        raise InputError(
            "nothing was wished for",
            code="NO_WISH",
            hint="say what the result is to be: --speedup 2, --max-drop 1%, --size 4MB, or --flops "
            "0.5",
        )
    return Wishes(asked, options.speedup, options.max_drop)


def share_of(limit: Limit, dense: Mapping[str, float | None]) -> float:
    """Return a limit as the share of the original's cost."""
    if limit.fraction is not None:
        return limit.fraction
    amount = dense.get(limit.kind)
    assert amount  # the costs of the original are known by then
    assert limit.absolute is not None
    return limit.absolute / amount


def _eased(limit: Limit, strength: float, dense: Mapping[str, float | None]) -> Limit:
    if strength >= 1:
        return limit
    return Limit(limit.kind, fraction=1 - strength * (1 - min(1.0, share_of(limit, dense))))


def _scaled(limit: Limit, factor: float) -> Limit:
    if limit.fraction is not None:
        return replace(limit, fraction=limit.fraction * factor)
    assert limit.absolute is not None
    return replace(limit, absolute=limit.absolute * factor)


def exceeded(
    wishes: Wishes,
    budget: Budget,
    before: ModelFigures,
    after: ModelFigures,
    row: BenchmarkRow | None,
) -> dict[str, float]:
    """Return by how much the measured costs of a cut exceed its budget, by kind: factors above 1.

    Only what is wished for counts.
    """
    found = {}
    for limit in budget.limits:
        if limit.kind == "latency" and row is not None and row.dense_ms:
            own = limit.ceiling(row.dense_ms)
            found["latency"] = row.slim_ms / own
        if limit.kind == "bytes" and "size" in wishes.asked:
            found["bytes"] = after.bytes / limit.ceiling(before.bytes)
    return {kind: factor for kind, factor in found.items() if factor > 1}


def judged(
    wishes: Wishes,
    before: ModelFigures,
    after: ModelFigures,
    row: BenchmarkRow | None,
    drop: float | None,
) -> Iterator[Wish]:
    """Yield every wish with what came of it.

    A speed is met where the 95 % interval of its measurement reaches what was asked.
    """
    for name, limit in wishes.asked.items():
        if name == "speedup":
            assert wishes.speedup is not None
            got = None if row is None else row.speedup
            high = None if row is None else row.speedup_high
            met = got is not None and max(got, high or 0.0) >= wishes.speedup
            yield Wish(name, wishes.speedup, got, met, f"{wishes.speedup:g}x", _times(got))
        elif limit.kind == "latency":
            yield _judged_latency(limit, row)
        elif name == "size":
            ceiling = limit.ceiling(before.bytes)
            texts = (format_bytes(int(ceiling)), format_bytes(after.bytes))
            yield Wish(name, ceiling, after.bytes, after.bytes <= ceiling, *texts)
        else:
            ceiling, own = limit.ceiling(before.amount(name)), after.amount(name)
            texts = (format_cost(name, ceiling), format_cost(name, own))
            yield Wish(name, ceiling, own, own <= ceiling, *texts)
    if wishes.max_drop is not None:
        met = drop is not None and drop <= wishes.max_drop
        got_text = "not measured" if drop is None else percent(drop)
        yield Wish("max_drop", wishes.max_drop, drop, met, percent(wishes.max_drop), got_text)


def _judged_latency(limit: Limit, row: BenchmarkRow | None) -> Wish:
    asked = limit.absolute if row is None or not row.dense_ms else limit.ceiling(row.dense_ms)
    if row is None or not row.dense_ms or asked is None:
        return Wish("latency", asked or 0.0, None, False, str(limit), "not measured")
    fastest = row.dense_ms / row.speedup_high if row.speedup_high else row.slim_ms
    met = min(row.slim_ms, fastest) <= asked
    texts = (format_cost("latency", asked), format_cost("latency", row.slim_ms))
    return Wish("latency", asked, row.slim_ms, met, *texts)


def _times(factor: float | None) -> str:
    return "not measured" if factor is None else f"{factor:.2f}x"
