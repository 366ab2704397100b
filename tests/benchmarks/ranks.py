"""Where signals stand in `taxonomy.csv`: ranks among the grid by the loss after the cut."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FAMOUS = (
    "l1", "l2", "bn-gamma", "geometric-median", "mean-activation", "apoz", "taylor", "taylor-2019",
    "fisher", "fisher-per-flop", "obd", "lamp",
)  # fmt: skip
"""Presets of the literature that curves are measured for first, and that tables show."""

Row = dict[str, str]
Setting = tuple[str, str]
"""A checkpoint and the fraction of its FLOPs that is kept."""
Name = tuple[str, str]
"""A signal, and its seed where it is a random draw."""


def ranks(rows: Iterable[Row], *, by: str = "loss_bn") -> dict[Setting, dict[Name, float]]:
    """Return the rank of every signal in every setting, 1 for the best of the grid.

    Equal losses share their mean rank. What is not of the grid has the rank that it would have in
    its place.
    """
    settings: dict[Setting, list[Row]] = defaultdict(list)
    for row in rows:
        settings[row["checkpoint"], row["kept"]].append(row)
    return {setting: _ranks(own, by) for setting, own in settings.items()}


def _ranks(rows: Sequence[Row], by: str) -> dict[Name, float]:
    grid = [float(row[by]) for row in rows if row["kind"] == "grid"]
    found = {}
    for row in rows:
        value = float(row[by])
        lower, equal = sum(other < value for other in grid), grid.count(value)
        found[row["signal"], row["seed"]] = lower + (max(equal, 1) + 1) / 2
    return found


def mean_ranks(found: Mapping[Setting, Mapping[Name, float]]) -> dict[Name, float]:
    """Return the mean rank, all networks counting alike, the best first."""
    networks: dict[Name, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (network, _), own in found.items():
        for name, rank in own.items():
            networks[name][network].append(rank)
    means = {name: mean(map(mean, own.values())) for name, own in networks.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def best(rows: Sequence[Row], count: int) -> list[str]:
    """Return the signals of the grid with the best mean rank, of equal ones the first alone."""
    grid = [row for row in rows if row["kind"] == "grid"]
    cuts: dict[str, list[str]] = defaultdict(list)
    for row in grid:
        cuts[row["signal"]].append(row["cut"])
    found: dict[tuple[str, ...], str] = {}
    for signal, _ in mean_ranks(ranks(grid)):
        found.setdefault(tuple(cuts[signal]), signal)
    return list(found.values())[:count]
