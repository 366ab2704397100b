"""Fit the expected error to what expected_error.py measured, and keep it in the package.

Writes prunecli/complexity/relation.json (what `prunecli analyze` reads), and beside this file
expected_error_fits.csv (every form for every way of measuring, with how far it holds) and a
scatter of every embedding, with the volume whose relation misses least.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from statistics import mean
from typing import Any

import numpy as np
from expected_error import HERE, rows_of
from small_network import PROTOCOL

from prunecli.complexity.expected import DATA, measured_of, relation_of
from prunecli.complexity.relation import FORMS, Fit, fit, spread_of
from prunecli.options import ComplexityOptions
from prunecli.pictures import relation_picture, save_figure

LABELS = (
    "labels drawn anew are wrong in training and test images alike, drawn on their own; the CSG is "
    "that of the training images with their labels as they are"
)


@dataclass(frozen=True)
class FitRow:
    """One form fitted for one way of measuring; errors in points of a hundred.

    `left_out` is the mean size of a miss when one data set is left out, `families_left_out` the
    root mean square when all variants of one are, every one of the three weighing the same;
    `inside` is the share of these misses that is within `half_interval`.
    """

    embedding: str
    volume: str
    form: str
    taken: int
    points: int
    r: float
    p: float
    left_out: float
    families_left_out: float
    digits_left_out: float
    mnist_left_out: float
    cifar_left_out: float
    half_interval: float
    inside: float


def main() -> None:
    """Write all files."""
    known = relation_data()
    DATA.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    rows = [row for settings in known["settings"] for row in fit_rows(known, settings)]
    with (HERE / "expected_error_fits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(vars(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(row) for row in rows)
    for row in rows:
        print(*vars(row).values(), sep="  ")
    for embedding in dict.fromkeys(each["embedding"] for each in known["settings"]):
        ways = [each for each in known["settings"] if each["embedding"] == embedding]
        best = min(
            ways, key=lambda each: fit(each["form"], *measured_of(known, each)).half_interval()
        )
        relation = relation_of(known, best, fit(best["form"], *measured_of(known, best)))
        save_figure(relation_picture(relation), HERE / f"expected_error_{embedding}.svg")


def relation_data() -> dict[str, Any]:
    """Return the package's data, from the two tables of measurements."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    settings: dict[str, dict[str, Any]] = {}
    balance: dict[str, float] = {}
    for row in rows_of(HERE / "expected_error_csg.csv"):
        key = f"{row['embedding']} {row['volume']}"
        scores[row["point"]][key] = float(row["csg"])
        balance[row["point"]] = float(row["balance"])
        settings[key] = {
            "embedding": row["embedding"],
            "volume": row["volume"],
            "samples": int(row["samples"]),
            "neighbours": int(row["neighbours"]),
            "variant": row["variant"],
            "repeats": int(row["repeats"]),
        }
    points = [
        {**point, "balance": balance[point["name"]], "scores": scores[point["name"]]}
        for point in _trained()
        if point["name"] in scores
    ]
    known = {
        "schema": 1,
        "made_by": "tests/benchmarks/expected_error.py, fit_relation.py",
        **PROTOCOL,
        "labels": LABELS,
        "versions": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
        "images_seen": ComplexityOptions.limit,
        "settings": list(settings.values()),
        "points": points,
    }
    for each in settings.values():
        each["form"] = best_form(known, each)
    return known


def best_form(known: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return the form that foretells families best which it was not fitted to."""
    fits = [fit(entry.name, *measured_of(known, settings)) for entry in FORMS]
    return min(fits, key=lambda each: spread_of(each.family_left_out, each.families)).form


def fit_rows(known: dict[str, Any], settings: dict[str, Any]) -> list[FitRow]:
    """Return how well every form holds for one way of measuring."""
    return [_fit_row(settings, fit(entry.name, *measured_of(known, settings))) for entry in FORMS]


def _fit_row(settings: dict[str, Any], found: Fit) -> FitRow:
    families = np.array(found.families)
    misses = {
        name: float(np.abs(found.family_left_out[families == name]).mean())
        for name in ("digits", "MNIST", "CIFAR-10")
    }
    return FitRow(
        embedding=settings["embedding"],
        volume=settings["volume"],
        form=found.form,
        taken=int(settings["form"] == found.form),
        points=len(found.errors),
        r=round(found.r, 3),
        p=float(f"{found.p:.1e}"),
        left_out=round(100 * float(np.abs(found.left_out).mean()), 1),
        families_left_out=round(100 * spread_of(found.family_left_out, found.families), 1),
        digits_left_out=round(100 * misses["digits"], 1),
        mnist_left_out=round(100 * misses["MNIST"], 1),
        cifar_left_out=round(100 * misses["CIFAR-10"], 1),
        half_interval=round(100 * found.half_interval(), 1),
        inside=round(float((np.abs(found.family_left_out) <= found.half_interval()).mean()), 3),
    )


def _trained() -> list[dict[str, Any]]:
    """Return what was trained on, with the mean error over seeds."""
    rows = sorted(rows_of(HERE / "expected_error.csv"), key=itemgetter("point"))
    found = []
    for name, group in groupby(rows, key=itemgetter("point")):
        seeds = list(group)
        first = seeds[0]
        found.append(
            {
                "name": name,
                "data": first["data"],
                "classes": int(first["classes"]),
                "images": int(first["train_images"]),
                "test_images": int(first["test_images"]),
                "side": int(first["side"]),
                "channels": int(first["channels"]),
                "noise": float(first["noise"]),
                "seeds": len(seeds),
                "error": round(mean(float(row["error"]) for row in seeds), 5),
            }
        )
    return found


if __name__ == "__main__":
    main()
