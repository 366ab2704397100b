"""The tables of signals: rows as text, from the tables that the benchmarks wrote."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import chain
from statistics import mean
from typing import TYPE_CHECKING

from prunecli.signals import PRESETS, distinct_grid, parse_signal
from prunecli.signals.score import Adjusted
from tests.benchmarks.ranks import FAMOUS, best, mean_ranks, ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Row = dict[str, str]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The head of a table, and its rows."""

TOP = 10
SHOWN = (0.9, 0.7, 0.5, 0.3)
"""Fractions of the FLOPs that the table of curves shows."""
KINDS = ("dense", "grid", "preset", "random")


def oracle_taylor(rows: Sequence[Row]) -> Table:
    """Return how well the first-order criterion ranks channels, without and with layerwise L2."""
    found = {(row["checkpoint"], row["against"], row["signal"]): row for row in rows}
    words = {"size": "size of the change", "change": "change"}
    body = [
        (
            network,
            words[against],
            *(
                f"{float(found[network, against, signal][scope]):.2f}"
                for signal, scope in (
                    ("removal", "per_layer"),
                    ("removal", "pooled"),
                    ("removal", "pooled_l2"),
                    ("taylor", "pooled"),
                )
            ),
        )
        for network, against in dict.fromkeys((row["checkpoint"], row["against"]) for row in rows)
    ]
    head = ("network", "beside the", "per layer", "pooled, no norm", "pooled, L2 of each group",
            "pooled, L2 at each site (`taylor`)")  # fmt: skip
    return head, body


def complete(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the settings in which all of the grid has been measured."""
    counts = Counter((row["checkpoint"], row["kept"]) for row in rows if row["kind"] == "grid")
    full = len(distinct_grid())
    return [row for row in rows if counts[row["checkpoint"], row["kept"]] == full]


def taxonomy_top(rows: Sequence[Row]) -> Table:
    """Return the signals of the grid with the best mean rank; of equal ones the first."""
    found = ranks(rows)
    means = mean_ranks(found)
    names = [(signal, "0") for signal in best(rows, TOP)]
    body = [(f"`{name[0]}`", *_places(found, name), f"{means[name]:.1f}") for name in names]
    return _head("signal", found), body


def taxonomy_presets(rows: Sequence[Row]) -> Table:
    """Return where the presets and random draws would stand among the grid."""
    found = ranks(rows)
    means = mean_ranks(found)
    presets = {row["signal"] for row in rows if row["kind"] == "preset"}
    body = [
        (f"`{signal}`", _point(signal), *_places(found, (signal, seed)), f"{mean_rank:.1f}")
        for (signal, seed), mean_rank in means.items()
        if signal in presets
    ]
    seeds = sorted({row["seed"] for row in rows if row["kind"] == "random"})
    drawn = [[own["random", seed] for seed in seeds] for own in found.values()]
    if seeds:
        places = (f"{mean(own):.0f}" for own in drawn)
        label = f"mean of {len(seeds)} draws"
        body.append(("`random`", label, *places, f"{mean(chain.from_iterable(drawn)):.1f}"))
    head = _head("preset", found)
    return (head[0], "point of the taxonomy", *head[1:]), body


def taxonomy_parts(rows: Sequence[Row]) -> Table:
    """Return the mean rank of all signals of the grid that have a part, by network."""
    grid = [row for row in rows if row["kind"] == "grid"]
    networks = list(dict.fromkeys(row["checkpoint"] for row in grid))
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (network, _), own in ranks(grid).items():
        for (name, _), rank in own.items():
            signal = parse_signal(name)
            for part in ("base_input", "pointwise_metric", "reduction", "scaling"):
                found[part, getattr(signal, part)][network].append(rank)
    body = [
        (part.replace("_", " "), f"`{value}`", *(f"{mean(own[name]):.0f}" for name in networks))
        for (part, value), own in sorted(
            found.items(), key=lambda item: (PARTS.index(item[0][0]), _overall(item[1]))
        )
    ]
    return ("part", "value", *networks), body


PARTS = ("base_input", "pointwise_metric", "reduction", "scaling")


def _overall(own: Mapping[str, Sequence[float]]) -> float:
    return mean(mean(values) for values in own.values())


def curves(rows: Sequence[Row]) -> Table:
    """Return accuracy as cut / with batch norm anew, and the loss then, at some fractions."""
    lines: dict[tuple[str, str], dict[float, list[Row]]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: KINDS.index(row["kind"])):
        if row["kind"] != "preset" or row["signal"] in FAMOUS:
            own = lines[row["kind"], row["signal"]]
            own.setdefault(float(row["kept"]), []).append(row)
    body = [
        (
            signal if kind == "dense" else f"`{signal}`",
            *(_cell(own.get(kept) or own.get(1.0, ())) for kept in SHOWN),
        )
        for (kind, signal), own in lines.items()
    ]
    return ("signal", *(f"at {kept}" for kept in SHOWN)), body


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    plain, again, loss = (
        mean(float(row[name]) for row in rows) for name in ("accuracy", "accuracy_bn", "loss_bn")
    )
    return f"{100 * plain:.1f} / {100 * again:.1f} % ({loss:.2f})"


def _head(first: str, found: Mapping[tuple[str, str], object]) -> tuple[str, ...]:
    return (first, *(f"{network}, {kept}" for network, kept in found), "mean rank")


def _places(found: Mapping[tuple[str, str], Mapping], name: tuple[str, str]) -> list[str]:
    return [f"{own[name]:g}" for own in found.values()]


def _point(preset: str) -> str:
    """Return the point of the taxonomy that a preset stands for, if it is one."""
    value = PRESETS.get(preset)
    if isinstance(value, Adjusted):
        return f"`{value.signal}`, adjusted"
    return f"`{value}`" if isinstance(value, str) else ""
