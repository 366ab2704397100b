"""The tables about learnability, from what the benchmarks wrote."""

from __future__ import annotations

from collections import defaultdict
from statistics import mean, stdev
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Row: TypeAlias = dict[str, str]
Table: TypeAlias = tuple[tuple[str, ...], list[tuple[str, ...]]]

PAPER = {
    frozenset({"VGG", "ResNet-20"}): ".796 (.867)",
    frozenset({"VGG", "MobileNet"}): ".713 (.792)",
    frozenset({"ResNet-20", "MobileNet"}): ".774 (.782)",
}
"""The pairs of Lee et al. 2019 as a copy of their table gives them; for a VGG-16 there."""


def runs(rows: Sequence[Row]) -> Table:
    """Return the runs: how good they are, and how learnable the images are to them."""
    body = [
        (
            f"{row['network']}, seed {row['seed']}",
            row["parameters"],
            _percent(float(row["test_accuracy"])),
            f"{float(row['learnability']):.3f}",
            row["always"],
            row["never"],
            f"{float(row['forgetting']):.2f}",
        )
        for row in sorted(rows, key=lambda row: (row["network"], row["seed"]))
    ]
    head = ("run", "parameters", "test accuracy", "mean L", "always right", "never right",
            "forgotten per image")  # fmt: skip
    return head, body


def agreement(rows: Sequence[Row]) -> Table:
    """Return the agreement of families, a family with itself by another seed first."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        families = sorted(row[name].rpartition("-")[0] for name in ("first", "second"))
        found[tuple(families)].append(row)
    measures = ("pearson", "spearman", "overlap", "always_right", "pearson_wrong", "spearman_wrong")
    body = []
    for (first, second), own in sorted(found.items(), key=lambda item: item[0][0] != item[0][1]):
        values = {name: mean(float(row[name]) for row in own) for name in measures}
        body.append(
            (
                f"{first}, another seed" if first == second else f"{first} and {second}",
                str(len(own)),
                f"{values['pearson']:.3f}",
                f"{values['spearman']:.3f}",
                _percent(values["overlap"]),
                f"{values['always_right']:.0f}",
                f"{values['pearson_wrong']:.3f}",
                f"{values['spearman_wrong']:.3f}",
                PAPER.get(frozenset({first, second}), ""),
            )
        )
    head = ("networks", "pairs", "Pearson", "Spearman", "hardest tenth in common", "always right",
            "Pearson without", "Spearman without", "the paper's pair")  # fmt: skip
    return head, body


def uses(rows: Sequence[Row]) -> Table:
    """Return the test errors of every way to train, and how far they are from plain training."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found[row["row"]][row["seed"]] = row
    plain = found.get("plain", {})
    body = []
    for name, own in found.items():
        errors = {seed: 1 - float(row["test_accuracy"]) for seed, row in own.items()}
        apart = [
            error - 1 + float(plain[seed]["test_accuracy"])
            for seed, error in errors.items()
            if seed in plain
        ]
        first = next(iter(own.values()))
        spread = f" ± {100 * stdev(apart):.1f}" if len(apart) > 1 else ""
        body.append(
            (
                name,
                first["images"],
                first["updates"],
                _percent(mean(errors.values())),
                "" if name == "plain" else f"{100 * mean(apart):+.1f}{spread}",
                " ".join(_percent(error) for error in errors.values()),
            )
        )
    head = ("trained on", "images", "updates", "test error", "against plain", "by seed")
    return head, body


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
