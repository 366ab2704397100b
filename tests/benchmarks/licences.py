"""The licences of everything that an installation of prunecli brings along.

    python tests/benchmarks/licences.py

Follows the requirements of the installed package (without extras) through the metadata of what is
installed, and writes `licences.csv` beside this script: package, licence, and who needs it.
"""

from __future__ import annotations

import csv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from importlib.metadata import Distribution

TABLE = Path(__file__).with_suffix(".csv")


def main() -> None:
    """Write the table."""
    found = needed_by("prunecli")
    rows = [(name, licence_of(distribution(name)), by) for name, by in sorted(found.items())]
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("package", "licence", "needed_by"))
        writer.writerows(rows)
    for row in rows:
        print(*row, sep=", ")


def needed_by(root: str) -> dict[str, str]:
    """Return every package that `root` needs, directly or not, and a package that asks for it."""
    found: dict[str, str] = {}
    waiting = [root]
    while waiting:
        asking = waiting.pop()
        for line in distribution(asking).requires or []:
            requirement = Requirement(line)
            name = requirement.name.lower().replace("_", "-")
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if not wanted or name in found:
                continue
            try:
                distribution(name)
            except PackageNotFoundError:
                continue  # of another platform
            found[name] = asking
            waiting.append(name)
    return found


def licence_of(package: Distribution) -> str:
    """Return the licence as a package states it, the shortest statement first."""
    stated = package.metadata
    classifiers = [
        value.rpartition(" :: ")[2]
        for value in stated.get_all("Classifier") or []
        if value.startswith("License :: ")
    ]
    plain = (stated.get("License-Expression") or stated.get("License") or "").strip()
    text = plain if plain and len(plain) < 60 else ", ".join(classifiers)
    return text.splitlines()[0] if text else "not stated"


if __name__ == "__main__":
    main()
