"""Cut every network of whole model zoos to half its FLOPs with default options, and prove it.

    python tests/benchmarks/zoo.py [NAME ...] [--list torchvision|timm|all] [--jobs N]
        [--time-limit SECONDS] [--again] [--against torch-pruning]

Each model runs in a process of its own; a crash or a time-out is a row too. Rows are kept in
`zoo.csv` beside this script, and models that have one are skipped, unless they are named or
`--again` is given. Exits with 1 when a network was neither cut and proven nor infeasible.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

if TYPE_CHECKING:
    from zoo_models import Entry

FOLDER = Path(__file__).resolve().parent
Row = dict[str, object]

FIELDS = (
    "source", "model", "kind", "outcome", "mode", "kept_flops", "kept_params", "method",
    "max_rel_error", "control_error", "dense_difference", "frozen", "frozen_why", "trace_s",
    "couple_s", "cost_s", "score_s", "allocate_s",
    "cut_s", "prove_s", "peak_gib", "prove_peak_gib", "onnx", "note",
)  # fmt: skip
PEER_FIELDS = ("source", "model", "kind", "outcome", "kept_flops", "seconds", "note")
PATIENCE = 5
"""The time limit counts CPU seconds, so that a busy machine fails nobody; this bounds the rest."""

GOOD = ("proven", "infeasible")


@dataclass(frozen=True)
class Sweep:
    """One tool's sweep: the script that runs one model, and the table that holds its rows."""

    script: str
    table: str
    fields: tuple[str, ...]


SWEEPS = {
    "prunecli": Sweep("zoo_one.py", "zoo.csv", FIELDS),
    "torch-pruning": Sweep("zoo_peer.py", "zoo_torch_pruning.csv", PEER_FIELDS),
}


def main() -> int:
    """Run what is asked for and has no row yet; print the summary."""
    options = arguments()
    from zoo_models import ENTRIES, choose_timm

    if options.choose_timm:
        choose_timm()
    sweep = SWEEPS[options.against or "prunecli"]
    sources = list(ENTRIES) if options.list == "all" else [options.list]
    entries = [entry for source in sources for entry in ENTRIES[source]()]
    wanted = select(entries, options.names)
    table = Table(FOLDER / sweep.table, sweep.fields)
    todo = [entry for entry in wanted if is_due(table.rows.get(entry.key), options)]
    todo.sort(key=lambda entry: entry.parameters)
    limit = 10**9 if options.largest is None else options.largest * 1e6
    todo = [entry for entry in todo if entry.parameters <= limit]

    flags = ["--no-export"] if options.no_export else []

    def run(entry: Entry) -> None:
        table.put(entry, run_one(entry, sweep, options.time_limit, flags))

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, todo))
    rows = [table.rows[entry.key] for entry in wanted if entry.key in table.rows]
    return summarise(rows, missing=len(wanted) - len(rows))


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="model, or source/model; run again if done")
    parser.add_argument("--list", choices=("torchvision", "timm", "all"), default="all")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=240, help="CPU seconds for a model")
    parser.add_argument("--largest", type=float, help="leave out models above, in M parameters")
    parser.add_argument("--again", action="store_true", help="run also what has a row")
    parser.add_argument("--failed", action="store_true", help="run again what failed")
    parser.add_argument("--against", choices=("torch-pruning",), help="run this tool instead")
    parser.add_argument("--no-export", action="store_true", help="leave the ONNX parity out")
    parser.add_argument("--choose-timm", action="store_true", help="list timm's models anew first")
    return parser.parse_args()


def is_due(row: Row | None, options: argparse.Namespace) -> bool:
    """Tell whether a model is to be run: it has no row, or what it has is to be replaced."""
    failed = row is not None and row["outcome"] not in GOOD
    return row is None or options.again or bool(options.names) or (options.failed and failed)


def select(entries: list[Entry], names: list[str]) -> list[Entry]:
    """Return the entries that are named, or all."""
    if not names:
        return entries
    unknown = set(names) - {entry.key for entry in entries} - {entry.name for entry in entries}
    if unknown:
        sys.exit(f"no such model in the list: {', '.join(sorted(unknown))}")
    return [entry for entry in entries if entry.key in names or entry.name in names]


# --- one model in its own process ----------------------------------------------------------------


def run_one(entry: Entry, sweep: Sweep, limit: float, flags: list[str]) -> Row:
    """Return the row of one model; the last one that its process wrote, if it did not end well."""
    command = [sys.executable, str(FOLDER / sweep.script), entry.source, entry.name, *flags]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    process = subprocess.Popen(
        ["bash", "-c", f'ulimit -S -t {limit:.0f}; exec "$@"', "bash", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    late = False
    try:
        out, talk = process.communicate(timeout=PATIENCE * limit)
    except subprocess.TimeoutExpired:
        process.kill()
        out, talk = process.communicate()
        late = True
    late = late or process.returncode == -signal.SIGXCPU
    ended = f"over {limit:.0f} s" if late else f"crash {process.returncode}"
    ended = ended if process.returncode else ""
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    row: Row = rows[-1] if rows else {}
    if ended:
        last = (talk.strip().splitlines() or [""])[-1][:200]
        row["note"] = "; ".join(filter(None, (str(row.get("note", "")), ended, last)))
        if "outcome" not in row or row["outcome"] == "killed while pruning":
            row["outcome"] = ended
    return row


class Table:
    """The rows of a sweep by model, written after each."""

    def __init__(self, path: Path, fields: tuple[str, ...]) -> None:
        self.path, self.fields = path, fields
        self.lock = threading.Lock()
        self.rows: dict[str, Row] = {}
        if path.exists():
            with path.open(newline="") as file:
                rows = [dict(row) for row in csv.DictReader(file)]
            self.rows = {f"{row['source']}/{row['model']}": row for row in rows}

    def put(self, entry: Entry, row: Row) -> None:
        """Add or replace one row, and print it."""
        row = {"source": entry.source, "model": entry.name, "kind": entry.kind, **row}
        with self.lock:
            self.rows[entry.key] = row
            partial = self.path.with_suffix(".partial")
            with partial.open("w", newline="") as file:
                writer = csv.DictWriter(file, self.fields, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(self.rows[key] for key in sorted(self.rows))
            partial.replace(self.path)
            short = {key: value for key, value in row.items() if value not in ("", None)}
            print(json.dumps(short), flush=True)


def summarise(rows: list[Row], *, missing: int) -> int:
    """Print how many models ended how, by source and kind; return the exit status."""
    for source in sorted({str(row["source"]) for row in rows}):
        own = [row for row in rows if row["source"] == source]
        counts = Counter(str(row["outcome"]) for row in own)
        print(f"{source}: {len(own)} models")
        for outcome, count in counts.most_common():
            names = [str(row["model"]) for row in own if row["outcome"] == outcome]
            print(f"{count:5d}  {outcome}" + ("" if outcome in GOOD else f": {', '.join(names)}"))
    if missing:
        print(f"{missing} models have no row yet")
    return int(missing > 0 or any(row["outcome"] not in GOOD for row in rows))


if __name__ == "__main__":
    sys.exit(main())
